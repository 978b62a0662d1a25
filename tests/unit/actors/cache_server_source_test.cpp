#include "actors/deliver/cache_pages.hpp"
#include "actors/deliver/source_upload.hpp"
#include "actors/deliver/tickets.hpp"
#include "nix/narinfo.hpp"
#include "store/compression.hpp"
#include "store/path_records.hpp"
#include "tests/unit/actors/cache_server_fixture.hpp"

using namespace coppice;
using namespace coppice::actors;
using namespace coppice::test;

namespace {

/// Keeps the bytes, or is full.
class memory_writer final : public store::blob_writer {
public:
  explicit memory_writer(std::string& bytes, std::size_t room) : bytes_(bytes), room_(room) {}
  expected<void> write(std::string_view bytes) override {
    if (bytes_.size() + bytes.size() > room_) return fail(ec::storage_full, "no space left");
    bytes_ += bytes;
    return {};
  }
  expected<void> commit(const std::string&) override { return {}; }

private:
  std::string& bytes_;
  std::size_t room_;
};

struct outcome {
  expected<path_info> info;
  std::string blob;
  ec code() const { return info ? ec::none : info.error().code; }
};

outcome upload(const nix::store_path& path, std::string_view body, const source_upload::options& o = {},
               std::size_t piece = 4096, std::size_t room = SIZE_MAX) {
  outcome out{fail(ec::none, ""), {}};
  source_upload u{path, std::make_unique<memory_writer>(out.blob, room), o};
  for (std::size_t i = 0; i < body.size(); i += piece)
    if (auto done = u.write(body.substr(i, piece)); !done) {
      out.info = tl::unexpected(done.error());
      return out;
    }
  out.info = u.finish();
  return out;
}

std::string nar_of_directory(std::string_view file_contents) {
  std::string nar;
  nix::nar_writer w{[&nar](std::string_view bytes) { nar += bytes; }};
  w.begin_directory();
  w.entry("file");
  w.regular(true, file_contents.size());
  w.contents(file_contents);
  w.entry("link");
  w.symlink("file");
  w.end_directory();
  w.finish();
  return nar;
}

} // namespace

TEST_CASE("a source is accepted and described by what its bytes say") {
  auto s = source_sample("hello.txt", "hello\n");
  auto o = upload(s.path, s.exported);
  REQUIRE(o.info);
  auto nar = nar_of("hello\n");
  CHECK(o.info->path == s.path);
  CHECK(o.info->nar_size == nar.size());
  CHECK(o.info->nar_hash.bytes == nix::sha256(nar));
  CHECK(o.info->ca == "fixed:r:" + nix::hash{nix::sha256(nar)}.to_string());
  CHECK(o.info->blob.bytes == nix::sha256(o.blob));
  CHECK(o.info->blob_size == o.blob.size());
  CHECK(store::decompress(o.blob, {}).value() == nar);
  CHECK(nix::content_address_matches(store::to_narinfo(*o.info)).value());
}

TEST_CASE("a source is accepted whatever the pieces it comes in, compressed or not") {
  auto nar = nar_of_directory(noise(100'000));
  auto path = nix::source_path("tree", nix::sha256(nar)).value();
  auto body = export_of(path, nar);
  CHECK(upload(path, body, {}, 1).info);
  CHECK(upload(path, body, {}, 7919).info);
  CHECK(upload(path, store::compress(body).value(), {}, 777).info);
}

TEST_CASE("every kind of content address is found and is one that Nix accepts") {
  auto contents = "contents\n";
  auto nar = nar_of(contents);
  std::vector<std::pair<nix::store_path, std::string>> cases{
      {nix::text_path("text", contents, {}).value(), "text:sha256:"}};
  for (auto algo : {nix::hash_algo::md5, nix::hash_algo::sha1, nix::hash_algo::sha256, nix::hash_algo::sha512}) {
    auto flat = nix::fixed_output_path("flat", nix::content_method::flat, nix::hash_of(algo, contents)).value();
    auto tree = nix::fixed_output_path("tree", nix::content_method::recursive, nix::hash_of(algo, nar)).value();
    cases.emplace_back(flat, "fixed:" + std::string{to_string(algo)} + ":");
    cases.emplace_back(tree, "fixed:r:" + std::string{to_string(algo)} + ":");
  }
  for (auto& [path, ca] : cases) {
    INFO(ca);
    auto o = upload(path, export_of(path, nar));
    REQUIRE(o.info);
    CHECK(o.info->ca.starts_with(ca));
    CHECK(nix::content_address_matches(store::to_narinfo(*o.info)).value());
  }
}

TEST_CASE("an executable file has no flat content address") {
  auto path =
      nix::fixed_output_path("flat", nix::content_method::flat, nix::hash_of(nix::hash_algo::sha256, "x")).value();
  CHECK(upload(path, export_of(path, nar_of("x"))).info);
  CHECK(upload(path, export_of(path, nar_of("x", true))).code() == ec::invalid);
}

TEST_CASE("references that were not hashed into the path are refused") {
  auto a = source_sample("a", "a").path, b = source_sample("b", "b").path;
  auto good = source_sample("user", "of a", {a});
  CHECK(upload(good.path, good.exported).info.value().references == std::vector{a});
  auto nar = nar_of("of a");
  CHECK(upload(good.path, export_of(good.path, nar)).code() == ec::invalid);
  CHECK(upload(good.path, export_of(good.path, nar, {b})).code() == ec::invalid);
  CHECK(upload(good.path, export_of(good.path, nar, {a, b})).code() == ec::invalid);
}

TEST_CASE("no single flipped byte gets in") {
  auto s = source_sample("f", "some contents, long enough");
  for (std::size_t i = 0; i < s.exported.size(); ++i) {
    auto bad = s.exported;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    INFO("byte " << i);
    CHECK_FALSE(upload(s.path, bad).info);
  }
}

TEST_CASE("no prefix of an export and no export with something behind it gets in") {
  auto s = source_sample("f", "some contents");
  for (std::size_t n = 0; n < s.exported.size(); ++n) {
    INFO(n << " bytes");
    CHECK(upload(s.path, std::string_view{s.exported}.substr(0, n)).code() == ec::bad_message);
  }
  CHECK(upload(s.path, s.exported + std::string(8, '\0')).code() == ec::bad_message);
  auto half = store::compress(s.exported).value();
  CHECK(upload(s.path, std::string_view{half}.substr(0, half.size() / 2)).code() == ec::corrupt);
}

TEST_CASE("an export of another path or of two paths is refused") {
  auto a = source_sample("a", "1"), b = source_sample("b", "2");
  auto other = upload(a.path, b.exported);
  CHECK(other.code() == ec::invalid);
  CHECK(other.info.error().what.find(a.path.base_name()) != std::string::npos);
  auto end = std::string(8, '\0');
  auto both = a.exported.substr(0, a.exported.size() - 8) + b.exported;
  CHECK(upload(a.path, both).code() == ec::bad_message);
}

TEST_CASE("a path that does not follow from its contents is named as not content-addressed") {
  auto built = nix::store_path::from_base_name("7c0qdvsd3w3f7x4n0kzmd5yp0y2nvmxk-output").value();
  auto o = upload(built, export_of(built, nar_of("built")));
  CHECK(o.code() == ec::invalid);
  CHECK(o.info.error().what == "/nix/store/7c0qdvsd3w3f7x4n0kzmd5yp0y2nvmxk-output is not content-addressed: only "
                               "sources and texts can be uploaded");
}

TEST_CASE("a source that is too large is refused before it is read whole") {
  auto s = source_sample("large", std::string(1'000'000, 'x'));
  CHECK(upload(s.path, s.exported, {.nar_bytes_max = 900'000}).code() == ec::limit_exceeded);
  CHECK(upload(s.path, std::string_view{s.exported}.substr(0, 950'000), {.nar_bytes_max = 900'000}).code() ==
        ec::limit_exceeded);
  CHECK(upload(s.path, store::compress(s.exported).value(), {.nar_bytes_max = 900'000}).code() == ec::limit_exceeded);
  CHECK(upload(s.path, s.exported, {.nar_bytes_max = 1'000'200}).info);
}

TEST_CASE("a full store is told as that, not as a bad upload") {
  auto s = source_sample("noise", noise(500'000));
  CHECK(upload(s.path, s.exported, {}, 4096, 100'000).code() == ec::storage_full);
}

TEST_CASE("ranges are read as RFC 9110 has them") {
  using kind = byte_range::kind;
  auto part = [](std::uint64_t first, std::uint64_t length) { return byte_range{first, length, kind::part}; };
  const byte_range whole{0, 100, kind::whole}, none{0, 0, kind::unsatisfiable};
  CHECK(parse_range("", 100) == whole);
  CHECK(parse_range("bytes=0-0", 100) == part(0, 1));
  CHECK(parse_range("bytes=10-19", 100) == part(10, 10));
  CHECK(parse_range("bytes=90-200", 100) == part(90, 10));
  CHECK(parse_range("bytes=99-", 100) == part(99, 1));
  CHECK(parse_range("bytes=-5", 100) == part(95, 5));
  CHECK(parse_range("bytes=-500", 100) == part(0, 100));
  CHECK(parse_range("bytes=0-18446744073709551615", 100) == part(0, 100));
  CHECK(parse_range("bytes=100-", 100) == none);
  CHECK(parse_range("bytes=18446744073709551615-", 100) == none);
  CHECK(parse_range("bytes=-0", 100) == none);
  CHECK(parse_range("bytes=0-", 0) == none);
  for (auto odd : {"bytes=", "bytes=-", "bytes=5-4", "bytes=1-2,4-5", "bytes=a-b", "bytes=1", "items=1-2",
                   "bytes=99999999999999999999-", "bytes= 1-2", "bytes=+1-2"})
    CHECK(parse_range(odd, 100) == whole);
}

TEST_CASE("tickets end by time, and the oldest goes when there are too many") {
  ticket_box box{10min, 3};
  rt::manual_clock clock;
  auto first = box.issue({"first", role::node}, clock.now());
  REQUIRE(box.find(first, clock.now()));
  CHECK(box.find(first, clock.now())->name == "first");
  CHECK(box.find(first, clock.now())->role == role::node);
  CHECK_FALSE(box.find(first + "x", clock.now()));
  CHECK_FALSE(box.find("", clock.now()));
  clock.advance(5min);
  auto second = box.issue({"second", role::submitter}, clock.now());
  clock.advance(5min);
  CHECK_FALSE(box.find(first, clock.now()));
  CHECK(box.find(second, clock.now()).value().name == "second");
  std::string newest;
  for (int i = 0; i < 3; ++i)
    newest = box.issue({"other", role::admin}, clock.now());
  CHECK_FALSE(box.find(second, clock.now()));
  CHECK(box.find(newest, clock.now()).value().name == "other");
}
