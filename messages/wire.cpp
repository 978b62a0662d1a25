#include "messages/wire.hpp"

#include <msgpack.hpp>

#include <algorithm>
#include <bit>
#include <cmath>

namespace coppice::wire {

namespace {

/// What msgpack-cxx's packer writes to.
struct sink {
  std::string& bytes;
  void write(const char* p, std::size_t n) { bytes.append(p, n); }
};

msgpack::packer<sink> pack_into(sink& s) {
  return msgpack::packer<sink>{s};
}

/// Containers and strings longer than this have no msgpack form; far above every limit.
std::uint32_t size32(std::size_t n) {
  if (n > std::numeric_limits<std::uint32_t>::max()) throw std::length_error("a message of more than 4 GiB");
  return static_cast<std::uint32_t>(n);
}

} // namespace

void writer::nil() {
  sink s{bytes_};
  pack_into(s).pack_nil();
}
void writer::boolean(bool x) {
  sink s{bytes_};
  x ? pack_into(s).pack_true() : pack_into(s).pack_false();
}
void writer::uint(std::uint64_t x) {
  sink s{bytes_};
  pack_into(s).pack_uint64(x);
}
void writer::sint(std::int64_t x) {
  sink s{bytes_};
  pack_into(s).pack_int64(x);
}
void writer::real(double x) {
  sink s{bytes_};
  pack_into(s).pack_double(x);
}
void writer::str(std::string_view x) {
  sink s{bytes_};
  pack_into(s).pack_str(size32(x.size()));
  bytes_.append(x);
}
void writer::bin(std::span<const std::uint8_t> x) {
  sink s{bytes_};
  pack_into(s).pack_bin(size32(x.size()));
  bytes_.append(reinterpret_cast<const char*>(x.data()), x.size());
}
void writer::array(std::size_t n) {
  sink s{bytes_};
  pack_into(s).pack_array(size32(n));
}
void writer::map(std::size_t n) {
  sink s{bytes_};
  pack_into(s).pack_map(size32(n));
}

/// Turns the parser's events into a flat list of nodes, in the order of the bytes.
class reader::builder : public msgpack::null_visitor {
public:
  builder(std::vector<node>& nodes, std::string& why, std::size_t bytes, const limits& l)
      : nodes_(nodes), why_(why), values_max_(std::min(bytes, l.elements_max)), bytes_(bytes), limits_(l) {}

  bool visit_nil() { return add(kind::nil, 0); }
  bool visit_boolean(bool x) { return add(kind::boolean, x); }
  bool visit_positive_integer(std::uint64_t x) { return add(kind::uint, x); }
  bool visit_negative_integer(std::int64_t x) {
    if (x >= 0) return visit_positive_integer(static_cast<std::uint64_t>(x));
    return add(kind::sint, static_cast<std::uint64_t>(x));
  }
  bool visit_float32(float x) { return visit_float64(static_cast<double>(x)); }
  bool visit_float64(double x) { return add(kind::real, std::bit_cast<std::uint64_t>(x)); }
  bool visit_str(const char* p, std::uint32_t n) { return text(kind::str, p, n); }
  bool visit_bin(const char* p, std::uint32_t n) { return text(kind::bin, p, n); }
  bool visit_ext(const char*, std::uint32_t) { return fail("an extension type"); }
  bool start_array(std::uint32_t n) { return open(kind::array, n, n); }
  bool start_map(std::uint32_t n) { return open(kind::map, n, 2 * std::uint64_t{n}); }
  bool end_array() { return close(); }
  bool end_map() { return close(); }
  void parse_error(std::size_t, std::size_t) { fail("not msgpack"); }
  void insufficient_bytes(std::size_t, std::size_t) { fail("truncated"); }

private:
  bool fail(std::string_view why) {
    if (why_.empty()) why_ = why;
    return false;
  }
  bool add(kind k, std::uint64_t number, const char* data = nullptr) {
    nodes_.push_back({k, static_cast<std::uint32_t>(nodes_.size() + 1), number, data});
    return true;
  }
  bool text(kind k, const char* p, std::uint32_t n) {
    if (n > limits_.string_bytes_max) return fail("a string of " + std::to_string(n) + " bytes");
    return add(k, n, p);
  }
  /// A container announces values; each takes a byte at least, so more than there are bytes is a lie.
  bool open(kind k, std::uint32_t n, std::uint64_t values) {
    announced_ += values;
    if (announced_ > bytes_) return fail("truncated: a container announces more values than there are bytes");
    if (announced_ > values_max_) return fail("more than " + std::to_string(values_max_) + " values");
    if (open_.size() >= limits_.depth_max) return fail("nested deeper than " + std::to_string(limits_.depth_max));
    open_.push_back(nodes_.size());
    return add(k, n);
  }
  bool close() {
    nodes_[open_.back()].next = static_cast<std::uint32_t>(nodes_.size());
    open_.pop_back();
    return true;
  }

  std::vector<node>& nodes_;
  std::string& why_;
  std::vector<std::size_t> open_;
  std::uint64_t announced_ = 1;
  std::size_t values_max_, bytes_;
  const limits& limits_;
};

reader::reader(std::string_view bytes, const limits& l) {
  try {
    // an envelope and most messages: one allocation, of less than the 1 kB up to which malloc asks no other thread
    nodes_.reserve(std::min<std::size_t>(bytes.size(), 1'000 / sizeof(node)));
    builder b{nodes_, why_, bytes.size(), l};
    std::size_t end = 0;
    bool whole = msgpack::parse(bytes.data(), bytes.size(), end, b);
    if (!whole && why_.empty()) why_ = "truncated";
    if (whole && end != bytes.size()) why_ = std::to_string(bytes.size() - end) + " bytes after the message";
  } catch (const std::exception& e) {
    why_ = e.what(); // the parser throws on sizes that no 32-bit machine could hold
  }
  if (!why_.empty()) nodes_.clear();
}

std::string_view reader::name(kind k) {
  switch (k) {
  case kind::nil: return "nil";
  case kind::boolean: return "a boolean";
  case kind::uint: return "an integer";
  case kind::sint: return "a negative integer";
  case kind::real: return "a float";
  case kind::str: return "a string";
  case kind::bin: return "a binary";
  case kind::array: return "an array";
  case kind::map: return "a map";
  }
  return "?";
}

bool reader::fail(std::string why) {
  if (why_.empty()) why_ = std::move(why);
  nodes_.clear();
  return false;
}

bool reader::failed_at(std::string_view place) {
  where_.insert(0, place);
  return false;
}

error reader::take_error(std::string_view what) const {
  return {ec::bad_message, "cannot read " + std::string{what} + where_ + ": " + why_};
}

bool reader::wrong(std::string_view wanted) {
  if (at_ >= nodes_.size()) return fail("the message ends early");
  return fail("expected " + std::string{wanted} + ", found " + std::string{name(nodes_[at_].what)});
}

const reader::node* reader::take(kind k) {
  if (at_ < nodes_.size() && nodes_[at_].what == k) return &nodes_[at_++];
  wrong(name(k));
  return nullptr;
}

bool reader::is_nil() const {
  return at_ < nodes_.size() && nodes_[at_].what == kind::nil;
}

bool reader::nil() {
  return take(kind::nil) != nullptr;
}

bool reader::boolean(bool& x) {
  const auto* n = take(kind::boolean);
  if (n) x = n->number != 0;
  return n != nullptr;
}

bool reader::uint(std::uint64_t& x, std::uint64_t max) {
  const auto* n = take(kind::uint);
  if (!n) return false;
  if (n->number > max) return fail(std::to_string(n->number) + " is more than " + std::to_string(max));
  x = n->number;
  return true;
}

bool reader::sint(std::int64_t& x, std::int64_t min, std::int64_t max) {
  if (at_ < nodes_.size() && nodes_[at_].what == kind::sint) {
    auto v = static_cast<std::int64_t>(nodes_[at_++].number);
    if (v < min) return fail(std::to_string(v) + " is less than " + std::to_string(min));
    x = v;
    return true;
  }
  std::uint64_t v = 0;
  if (!uint(v, static_cast<std::uint64_t>(max))) return false;
  x = static_cast<std::int64_t>(v);
  return true;
}

bool reader::real(double& x) {
  if (at_ < nodes_.size() && nodes_[at_].what == kind::real) {
    auto v = std::bit_cast<double>(nodes_[at_++].number);
    if (!std::isfinite(v)) return fail("not a finite number");
    x = v;
    return true;
  }
  std::int64_t v = 0;
  if (!sint(v, std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max())) return false;
  x = static_cast<double>(v);
  return true;
}

bool reader::view(std::string_view& x) {
  bool binary = at_ < nodes_.size() && nodes_[at_].what == kind::bin;
  const auto* n = take(binary ? kind::bin : kind::str);
  if (n) x = {n->number > 0 ? n->data : "", n->number};
  return n != nullptr;
}

bool reader::str(std::string& x) {
  std::string_view there;
  if (!view(there)) return false;
  x = there;
  return true;
}

bool reader::bin(std::span<std::uint8_t> x) {
  const auto* n = take(kind::bin);
  if (!n) return false;
  if (n->number != x.size()) {
    return fail("expected " + std::to_string(x.size()) + " bytes, found " + std::to_string(n->number));
  }
  std::copy_n(n->data, x.size(), x.begin());
  return true;
}

bool reader::array(std::size_t& n) {
  const auto* head = take(kind::array);
  if (head) n = head->number;
  return head != nullptr;
}

bool reader::map(std::size_t& n) {
  const auto* head = take(kind::map);
  if (head) n = head->number;
  return head != nullptr;
}

bool reader::store_path(nix::store_path& x) {
  const auto* n = take(kind::str);
  if (!n) return false;
  auto path = nix::store_path::from_base_name({n->number > 0 ? n->data : "", n->number});
  if (!path) return fail(path.error().what);
  x = std::move(*path);
  return true;
}

void reader::skip() {
  if (at_ < nodes_.size()) at_ = nodes_[at_].next;
}

namespace detail {

void write_struct(writer& w, const void* x, std::span<const field_ops> fields) {
  w.map(fields.size());
  for (const auto& f : fields) {
    w.uint(f.key);
    f.write(w, x);
  }
}

bool read_struct(reader& r, void* x, std::span<const field_ops> fields) {
  std::size_t n = 0;
  if (!r.map(n)) return false;
  std::uint64_t seen = 0; // by index: a field list has at most 16 entries
  while (n-- > 0) {
    std::uint64_t key = 0;
    if (!r.uint(key, std::numeric_limits<std::uint64_t>::max())) return false;
    auto f = std::find_if(fields.begin(), fields.end(), [&](const auto& candidate) { return candidate.key == key; });
    if (f == fields.end()) {
      r.skip();
      continue;
    }
    auto bit = std::uint64_t{1} << (f - fields.begin());
    auto place = "." + std::string{f->name};
    if (seen & bit) return r.fail("given twice"), r.failed_at(place);
    seen |= bit;
    if (!f->read(r, x)) return r.failed_at(place);
  }
  return true;
}

bool read_index(reader& r, std::size_t& index, std::size_t count) {
  std::size_t n = 0;
  if (!r.array(n)) return false;
  if (n != 2) return r.fail("expected [index, value], found an array of " + std::to_string(n));
  std::uint64_t i = 0;
  if (!r.uint(i, count - 1)) return false;
  index = i;
  return true;
}

} // namespace detail

} // namespace coppice::wire
