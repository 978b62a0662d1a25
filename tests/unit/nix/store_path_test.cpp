#include "fixtures.hpp"
#include "nix/placeholder.hpp"
#include "nix/store_path.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

const std::string hash_part = "bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx";

sha256_digest nar_hash_of_file(std::string_view contents, bool executable = false) {
  return sha256(nar_of_file(contents, executable));
}

/// The input sources of one of the generated derivations.
std::set<store_path> sources_of(const std::string& attribute) {
  static const auto all = read_json(data("generated/expected.json"));
  return paths(all.at("derivations").at(attribute).at("show-derivation").at("inputSrcs"));
}

} // namespace

TEST_CASE("a store path is taken apart and put together") {
  const auto parsed = path("/nix/store/" + hash_part + "-minimal.drv");
  CHECK(parsed.hash_part() == hash_part);
  CHECK(parsed.name() == "minimal.drv");
  CHECK(parsed.base_name() == hash_part + "-minimal.drv");
  CHECK(parsed.is_derivation());
  CHECK(parsed.to_string() == "/nix/store/" + hash_part + "-minimal.drv");
  CHECK(parsed.to_string("/other") == "/other/" + hash_part + "-minimal.drv");
  CHECK(good(store_path::parse("/other/" + hash_part + "-x", "/other")).name() == "x");
}

TEST_CASE("what is no store path is refused with its reason") {
  const std::string dir = "/nix/store/";
  for (const auto& text : {std::string{}, dir, std::string{"/nix/store"}, dir + hash_part, dir + hash_part + "-",
                           dir + hash_part + "x", hash_part + "-x", "/nix/stor/" + hash_part + "-x",
                           "/nix/storee/" + hash_part + "-x", dir + hash_part + "-x/bin", dir + '/' + hash_part + "-x",
                           dir + "e" + hash_part.substr(1) + "-x", dir + "B" + hash_part.substr(1) + "-x",
                           dir + hash_part + "-x\n", dir + hash_part + "-\xc3\xa9", dir + "../" + hash_part + "-x"})
    CHECK_FALSE(reason(store_path::parse(text)).empty());
}

TEST_CASE("a store path's name has the characters and the length that Nix allows") {
  for (const auto& name :
       {std::string{"a"}, std::string{"+-._?="}, std::string{".hidden"}, std::string{"..."}, std::string(211, 'x')})
    CHECK(check_store_name(name).has_value());
  for (const auto& name : {std::string{}, std::string{"."}, std::string{".."}, std::string{".-x"}, std::string{"..-x"},
                           std::string{"a b"}, std::string{"a/b"}, std::string{"a\0b", 3}, std::string(212, 'x')})
    CHECK_FALSE(check_store_name(name).has_value());
}

TEST_CASE("store paths are ordered like their full texts") {
  const auto low = path("/nix/store/" + hash_part + "-A"), high = path("/nix/store/" + hash_part + "-_");
  CHECK(low < high);
  CHECK(low.to_string() < high.to_string());
  CHECK(std::hash<store_path>{}(low) == std::hash<store_path>{}(path(low.to_string())));
}

TEST_CASE("paths of sources and texts are those of the oracle") {
  const auto hello = read(data("generated/src/hello.txt"));
  CHECK(sources_of("src-file").contains(good(source_path("hello.txt", nar_hash_of_file(hello)))));
  CHECK(sources_of("src-named-path")
            .contains(good(fixed_output_path("renamed.txt", content_method::flat, hash{sha256(hello)}))));
  CHECK(sources_of("src-text").contains(good(text_path("text.txt", "some text\nsecond line\n", {}))));
  const auto inner = good(text_path("inner.txt", "inner", {}));
  CHECK(sources_of("src-text-with-ref")
            .contains(good(text_path("text-with-ref.txt", "see " + inner.to_string() + "\n", {inner}))));
}

TEST_CASE("paths of source trees are those of the oracle") {
  const auto file = [](nar_writer& to, const std::string& name, const std::string& from, bool executable) {
    const auto contents = read(data("generated/src/" + from));
    to.entry(name);
    to.regular(executable, contents.size());
    to.contents(contents);
  };
  const auto tree = [&](bool with_sub) {
    return sha256(nar_of([&](nar_writer& to) {
      to.begin_directory();
      file(to, "hello.txt", "hello.txt", false);
      to.entry("link");
      to.symlink(read(data("generated/src/link"))); // kept as a file that holds the target
      file(to, "run.sh", "run.sh", true);
      if (with_sub) {
        to.entry("sub");
        to.begin_directory();
        file(to, "file", "sub/file", false);
        to.end_directory();
      }
      to.end_directory();
    }));
  };
  CHECK(sources_of("src-dir").contains(good(source_path("src", tree(true)))));
  CHECK(sources_of("src-filtered").contains(good(source_path("filtered", tree(false)))));
}

TEST_CASE("another store directory gives another path") {
  const auto here = good(text_path("x", "text", {})), there = good(text_path("x", "text", {}, "/other/store"));
  CHECK(here.hash_part() != there.hash_part());
}

TEST_CASE("flat content cannot have references") {
  const auto other = path("/nix/store/" + hash_part + "-x");
  const hash content{sha256("abc")};
  CHECK_FALSE(fixed_output_path("y", content_method::flat, content, {other}).has_value());
  CHECK_FALSE(fixed_output_path("y", content_method::flat, content, {}, true).has_value());
  CHECK(fixed_output_path("y", content_method::recursive, content, {other}, true).has_value());
  CHECK_FALSE(fixed_output_path("y", content_method::recursive, hash_of(hash_algo::sha1, "abc"), {other}).has_value());
}

TEST_CASE("placeholders are those of the oracle") {
  CHECK(own_placeholder("out") == "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9");
  CHECK(own_placeholder("dev") == "/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz");
  CHECK(upstream_placeholder(path("/nix/store/3yqlm6qcq8599j7lzix4ijnrb7clz6wf-ca.drv"), "out") ==
        "/0lmyb5nvfl8al7yg3j6w99qddvi1160rjvrbf5xfcn8j53ifgf1v");
  CHECK(upstream_placeholder(path("/nix/store/j56sf12rxpcv5swr14vsjn5cwm6bj03h-foo.drv"), "out") ==
        "/164j69y6zir9z0339n8pjigg3rckinlr77bxsavzizdaaljb7nh9");
  CHECK(upstream_placeholder(path("/nix/store/j56sf12rxpcv5swr14vsjn5cwm6bj03h-foo.drv"), "dev") ==
        "/0nr45p69vn6izw9446wsh9bng9nndhvn19kpsm4n96a5mycw0s4z");
}
