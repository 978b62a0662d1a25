#include "store/closure.hpp"

#include "nix/hash.hpp"
#include "store/compression.hpp"

#include <msgpack.hpp>

#include <limits>
#include <optional>
#include <set>

namespace coppice::store {

namespace {

struct text_of {
  std::string_view base_name;
  std::string_view aterm;
};

/// Collects the pairs of a packed closure; anything of another shape ends the parsing. Allocates by what is there,
/// never by what is claimed.
class closure_visitor : public msgpack::null_visitor {
public:
  explicit closure_visitor(std::size_t derivations_max) : derivations_max_(derivations_max) {}

  const std::vector<text_of>& texts() const { return texts_; }
  error failure() const { return failure_.value_or(error{ec::bad_message, "the closure is cut off or no msgpack"}); }

  bool start_array(std::uint32_t size) {
    ++depth_;
    if (depth_ == 1) {
      if (size <= derivations_max_) return true;
      return stop(ec::limit_exceeded, "the closure has more than " + std::to_string(derivations_max_) + " derivations");
    }
    if (depth_ > 2 || size != 2) return wrong();
    texts_.emplace_back();
    parts_ = 0;
    return true;
  }
  bool end_array() {
    --depth_;
    return true;
  }
  bool visit_str(const char* bytes, std::uint32_t size) {
    if (depth_ != 2 || parts_++ != 0) return wrong();
    texts_.back().base_name = {bytes, size};
    return true;
  }
  bool visit_bin(const char* bytes, std::uint32_t size) {
    if (depth_ != 2 || parts_++ != 1) return wrong();
    texts_.back().aterm = {bytes, size};
    return true;
  }
  bool visit_nil() { return wrong(); }
  bool visit_boolean(bool) { return wrong(); }
  bool visit_positive_integer(std::uint64_t) { return wrong(); }
  bool visit_negative_integer(std::int64_t) { return wrong(); }
  bool visit_float32(float) { return wrong(); }
  bool visit_float64(double) { return wrong(); }
  bool visit_ext(const char*, std::uint32_t) { return wrong(); }
  bool start_map(std::uint32_t) { return wrong(); }

private:
  bool wrong() { return stop(ec::bad_message, "the closure is not an array of [base name, text] pairs"); }
  bool stop(ec code, std::string what) {
    failure_ = error{code, std::move(what)};
    return false;
  }

  std::size_t derivations_max_;
  std::vector<text_of> texts_;
  std::uint32_t depth_ = 0;
  std::uint32_t parts_ = 0;
  std::optional<error> failure_;
};

expected<std::vector<text_of>> parse(std::string_view bytes, std::size_t derivations_max) {
  closure_visitor visitor{derivations_max};
  std::size_t end = 0;
  if (!msgpack::parse(bytes.data(), bytes.size(), end, visitor)) return tl::unexpected(visitor.failure());
  if (end != bytes.size())
    return fail(ec::bad_message, std::to_string(bytes.size() - end) + " bytes follow the closure");
  return visitor.texts();
}

/// Parses the text and proves that it is what the path names.
expected<std::pair<nix::store_path, closure_derivation>> check(const text_of& text, std::string_view store_dir) {
  auto path = nix::store_path::from_base_name(text.base_name);
  if (!path) return fail(ec::invalid, "the closure names a derivation wrongly: " + path.error().what);
  if (!path->is_derivation())
    return fail(ec::invalid, "the closure holds " + path->to_string(store_dir) + ", which is no derivation");
  auto drv = nix::parse_derivation(text.aterm, *path, store_dir);
  if (!drv) return fail(ec::invalid, drv.error().what);
  if (nix::print_derivation(*drv, store_dir) != text.aterm)
    return fail(ec::invalid, "derivation " + path->to_string(store_dir) + " is not written as Nix writes it");
  const auto follows = nix::text_path(path->name(), text.aterm, drv->references(), store_dir);
  if (!follows) return fail(ec::invalid, follows.error().what);
  if (*follows != *path)
    return fail(ec::invalid, "derivation " + path->to_string(store_dir) + " has contents whose path is " +
                                 follows->to_string(store_dir));
  return std::pair{std::move(*path), closure_derivation{std::move(*drv), std::string{text.aterm}}};
}

expected<void> check_complete(const derivation_closure& closure, std::string_view store_dir) {
  for (const auto& [path, item] : closure)
    for (const auto& [input, outputs] : item.drv.input_drvs)
      if (!closure.contains(input))
        return fail(ec::invalid, "derivation " + path.to_string(store_dir) + " needs " + input.to_string(store_dir) +
                                     ", which is not in the closure");
  return {};
}

} // namespace

expected<void> check_acyclic(const derivation_closure& closure, std::string_view store_dir) {
  using iterator = derivation_closure::const_iterator;
  struct step {
    iterator at;
    std::map<nix::store_path, std::set<std::string>>::const_iterator next;
  };
  std::set<nix::store_path> done, on_way;
  std::vector<step> way;
  auto go = [&](iterator at) {
    way.push_back({at, at->second.drv.input_drvs.begin()});
    on_way.insert(at->first);
  };
  for (auto start = closure.begin(); start != closure.end(); ++start) {
    if (!done.contains(start->first)) go(start);
    while (!way.empty()) {
      auto& [at, next] = way.back();
      if (next == at->second.drv.input_drvs.end()) {
        on_way.erase(at->first);
        done.insert(at->first);
        way.pop_back();
        continue;
      }
      const auto& input = (next++)->first;
      if (on_way.contains(input))
        return fail(ec::invalid, "derivation " + input.to_string(store_dir) + " needs itself, by way of " +
                                     at->first.to_string(store_dir));
      if (done.contains(input)) continue;
      if (const auto found = closure.find(input); found != closure.end()) go(found);
    }
  }
  return {};
}

expected<std::string> pack_closure(const std::vector<std::pair<nix::store_path, std::string>>& derivations) {
  std::string packed;
  auto into = [&](std::string_view block) -> expected<void> {
    packed += block;
    return {};
  };
  zstd_compressor compressor{into};
  struct {
    zstd_compressor& out;
    expected<void> done;
    void write(const char* bytes, std::size_t size) {
      if (done) done = out.write({bytes, size});
    }
  } stream{compressor, {}};
  msgpack::packer packer{stream};

  constexpr auto count_max = std::numeric_limits<std::uint32_t>::max();
  if (derivations.size() > count_max) return fail(ec::limit_exceeded, "too many derivations for a closure");
  packer.pack_array(static_cast<std::uint32_t>(derivations.size()));
  for (const auto& [path, aterm] : derivations) {
    if (aterm.size() > count_max) return fail(ec::limit_exceeded, path.to_string() + " is too large for a closure");
    packer.pack_array(2);
    packer.pack(path.base_name());
    packer.pack_bin(static_cast<std::uint32_t>(aterm.size()));
    packer.pack_bin_body(aterm.data(), static_cast<std::uint32_t>(aterm.size()));
  }
  auto done = stream.done.and_then([&] { return compressor.finish(); });
  if (!done) return tl::unexpected(done.error());
  return packed;
}

expected<derivation_closure> unpack_closure(std::string_view bytes, const closure_limits& limits,
                                            std::string_view store_dir) {
  decompress_limits bounds;
  bounds.bytes_max = limits.bytes_max;
  auto raw = decompress(bytes, bounds);
  if (!raw && raw.error().code == ec::corrupt) return fail(ec::bad_message, "the closure: " + raw.error().what);
  if (!raw) return tl::unexpected(raw.error());
  const auto texts = parse(*raw, limits.derivations_max);
  if (!texts) return tl::unexpected(texts.error());

  derivation_closure closure;
  for (const auto& text : *texts) {
    auto checked = check(text, store_dir);
    if (!checked) return tl::unexpected(checked.error());
    const auto [at, added] = closure.insert(std::move(*checked));
    if (!added) return fail(ec::invalid, "derivation " + at->first.to_string(store_dir) + " is in the closure twice");
  }
  auto sound = check_complete(closure, store_dir).and_then([&] { return check_acyclic(closure, store_dir); });
  if (!sound) return tl::unexpected(sound.error());
  return closure;
}

blob_id closure_id(std::string_view bytes) {
  return blob_id{nix::sha256(bytes)};
}

} // namespace coppice::store
