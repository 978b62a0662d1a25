#include "store/closure.hpp"

#include "nix/hash.hpp"
#include "store/compression.hpp"

#include <msgpack.hpp>

#include <limits>
#include <optional>
#include <unordered_map>

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

/// What is wrong with a text that is not as Nix writes it.
tl::unexpected<error> why_refused(const text_of& text, const nix::store_path& path, std::string_view store_dir) {
  const auto drv = nix::parse_derivation(text.aterm, path, store_dir);
  if (!drv) return fail(ec::invalid, drv.error().what);
  return fail(ec::invalid, "derivation " + path.to_string(store_dir) + " is not written as Nix writes it");
}

/// Reads the text and proves that it is what the path names.
expected<derivation_closure::item> check(const text_of& text, std::string_view store_dir) {
  auto path = nix::store_path::from_base_name(text.base_name);
  if (!path) return fail(ec::invalid, "the closure names a derivation wrongly: " + path.error().what);
  if (!path->is_derivation())
    return fail(ec::invalid, "the closure holds " + path->to_string(store_dir) + ", which is no derivation");
  auto drv = nix::derivation_view::read(text.aterm, std::string{nix::derivation_name(*path)}, store_dir);
  if (!drv) return why_refused(text, *path, store_dir);
  if (const auto follows = drv->path(store_dir); follows != *path)
    return fail(ec::invalid, "derivation " + path->to_string(store_dir) + " has contents whose path is " +
                                 follows.to_string(store_dir));
  return derivation_closure::item{std::move(*path), std::move(*drv), {}};
}

/// Finds every input among the items.
expected<void> connect(std::vector<derivation_closure::item>& items, std::string_view store_dir) {
  std::unordered_map<std::string_view, std::uint32_t> index;
  index.reserve(items.size());
  for (const auto& one : items)
    if (!index.emplace(one.path.base_name(), static_cast<std::uint32_t>(index.size())).second)
      return fail(ec::invalid, "derivation " + one.path.to_string(store_dir) + " is in the closure twice");
  for (auto& one : items) {
    one.inputs.reserve(one.drv.inputs().size());
    for (const auto& input : one.drv.inputs()) {
      const auto found = index.find(input.base_name);
      if (found == index.end())
        return fail(ec::invalid, "derivation " + one.path.to_string(store_dir) + " needs " + std::string{store_dir} +
                                     "/" + std::string{input.base_name} + ", which is not in the closure");
      one.inputs.push_back(found->second);
    }
  }
  return {};
}

/// Puts every item behind its inputs.
expected<void> sort(std::vector<derivation_closure::item>& items, std::string_view store_dir) {
  std::vector<std::vector<std::uint32_t>> inputs;
  inputs.reserve(items.size());
  for (auto& one : items)
    inputs.push_back(std::move(one.inputs));
  const auto order = inputs_first(inputs);
  if (!order)
    return fail(ec::invalid, "derivation " + items[order.error()].path.to_string(store_dir) + " needs itself");
  std::vector<std::uint32_t> place(items.size());
  std::vector<derivation_closure::item> sorted;
  sorted.reserve(items.size());
  for (const auto i : *order) {
    place[i] = static_cast<std::uint32_t>(sorted.size());
    for (auto& input : inputs[i])
      input = place[input];
    items[i].inputs = std::move(inputs[i]);
    sorted.push_back(std::move(items[i]));
  }
  items = std::move(sorted);
  return {};
}

} // namespace

tl::expected<std::vector<std::uint32_t>, std::uint32_t>
inputs_first(const std::vector<std::vector<std::uint32_t>>& inputs) {
  enum class state : std::uint8_t { untouched, open, done };
  struct step {
    std::uint32_t node;
    std::size_t next;
  };
  std::vector<state> states(inputs.size(), state::untouched);
  std::vector<std::uint32_t> order;
  order.reserve(inputs.size());
  std::vector<step> way; // on the heap: graphs may be very deep
  for (std::uint32_t start = 0; start < inputs.size(); ++start) {
    if (states[start] == state::untouched) way.push_back({start, 0});
    while (!way.empty()) {
      auto& [node, next] = way.back();
      states[node] = state::open;
      if (next == inputs[node].size()) {
        states[node] = state::done;
        order.push_back(node);
        way.pop_back();
        continue;
      }
      const auto input = inputs[node][next++];
      if (states[input] == state::open) return tl::unexpected<std::uint32_t>(input);
      if (states[input] == state::untouched) way.push_back({input, 0});
    }
  }
  return order;
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
  const auto shared = std::make_shared<const std::string>(std::move(*raw));
  const auto texts = parse(*shared, limits.derivations_max);
  if (!texts) return tl::unexpected(texts.error());

  std::vector<derivation_closure::item> items;
  items.reserve(texts->size());
  for (const auto& text : *texts) {
    auto checked = check(text, store_dir);
    if (!checked) return tl::unexpected(checked.error());
    items.push_back(std::move(*checked));
  }
  auto sound = connect(items, store_dir).and_then([&] { return sort(items, store_dir); });
  if (!sound) return tl::unexpected(sound.error());
  return derivation_closure{shared, std::move(items)};
}

blob_id closure_id(std::string_view bytes) {
  return blob_id{nix::sha256(bytes)};
}

} // namespace coppice::store
