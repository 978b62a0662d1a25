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
