#include "runtime/envelope.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace coppice;
using fuzz::must;

/// The body of a frame in which another node says several things at once.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::text_of(data, size);
  const auto views = rt::decode_bundle(bytes);
  if (!views) {
    must(!views.error().what.empty(), "what is refused is refused with a reason");
    return 0;
  }
  must(views->size() <= rt::bundle_frames_max, "a bundle has no more frames than allowed");
  std::vector<rt::frame> frames;
  for (const auto& v : *views) {
    must(v.head.size() + v.body.size() <= size, "its parts lie in it");
    if (auto head = rt::decode_head(v.head)) frames.push_back({std::move(*head), std::string{v.body}});
  }
  if (frames.empty()) return 0;
  std::vector<const rt::frame*> all;
  for (const auto& f : frames)
    all.push_back(&f);
  const auto again = rt::bundle_of(all);
  const auto read = rt::decode_bundle(again.body);
  must(read.has_value() && read->size() == frames.size(), "what is encoded can be decoded");
  for (std::size_t i = 0; i < frames.size(); ++i) {
    auto head = rt::decode_head((*read)[i].head);
    must(head.has_value() && (*read)[i].body == frames[i].body, "frame by frame");
    head->what.resize(std::min(head->what.size(), rt::reason_bytes_max));
    auto former = frames[i].head;
    former.what.resize(std::min(former.what.size(), rt::reason_bytes_max));
    must(*head == former, "and means the same");
  }
  return 0;
}
