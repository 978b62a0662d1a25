#include "runtime/envelope.hpp"

#include "messages/wire.hpp"

namespace coppice::rt {

std::string encode_head(envelope head) {
  if (head.what.size() > reason_bytes_max) head.what.resize(reason_bytes_max);
  return wire::encode(head);
}

expected<envelope> decode_head(std::string_view bytes) {
  return wire::decode<envelope>(bytes, {.depth_max = 8, .elements_max = 64, .string_bytes_max = envelope_bytes_max});
}

std::size_t bundled_bytes(const frame& f) {
  const auto& h = f.head;
  return 64 + h.target.size() + h.method.size() + std::min(h.what.size(), reason_bytes_max) + h.with.size() +
         h.whom.size() + f.body.size(); // 64: keys, numbers, and how long the texts are
}

frame bundle_of(std::span<const frame* const> frames) {
  wire::writer w;
  w.array(2 * frames.size());
  for (const auto* f : frames) {
    w.str(encode_head(f->head));
    w.str(f->body);
  }
  frame all;
  all.head.kind = frame_kind::bundle;
  all.head.version = frames.front()->head.version;
  all.body = w.take();
  return all;
}

expected<std::vector<frame_view>> decode_bundle(std::string_view body) {
  wire::reader r{body,
                 {.depth_max = 1, .elements_max = 2 * bundle_frames_max + 1, .string_bytes_max = bundle_bytes_max}};
  std::size_t parts = 0;
  bool well = r.array(parts) && (parts % 2 == 0 || r.fail("half a frame"));
  std::vector<frame_view> frames(well ? parts / 2 : 0);
  for (auto& f : frames)
    well = well && r.view(f.head) && r.view(f.body);
  if (!well) return tl::unexpected(r.take_error("bundle"));
  return frames;
}

error error_of(const envelope& head) {
  auto code = static_cast<ec>(head.code);
  bool known = head.code != 0 && to_string(code) != "unknown_error";
  return {known ? code : ec::unsupported, head.what};
}

envelope error_head(std::uint64_t id, const error& e) {
  envelope head;
  head.kind = frame_kind::error;
  head.id = id;
  head.code = static_cast<std::uint8_t>(e.code);
  head.what = e.what;
  return head;
}

} // namespace coppice::rt
