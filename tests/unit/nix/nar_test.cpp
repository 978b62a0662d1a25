#include "fixtures.hpp"
#include "nix/nar.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

constexpr hash_algo all_algos[] = {hash_algo::md5, hash_algo::sha1, hash_algo::sha256, hash_algo::sha512};

std::vector<std::filesystem::path> valid_nars() {
  std::vector<std::filesystem::path> all = {data("from-nix/2.8.0/case.nar"),
                                            data("from-nix/nars/regular-one-byte-zero-padding.nar")};
  for (const auto* folder : {"generated/nar", "from-tvix/nar", "from-tvix/nar-store-go", "from-harmonia/nar_parse"})
    for (auto& file : files(folder, ".nar"))
      all.push_back(std::move(file));
  return all;
}

/// Reads the NAR in pieces of `chunk_bytes`.
expected<void> read_in(std::string_view nar, std::size_t chunk_bytes, nar_visitor& visitor,
                       const nar_limits& limits = {}) {
  nar_reader reader{visitor, limits};
  for (std::size_t at = 0; at < nar.size(); at += chunk_bytes)
    if (auto fed = reader.feed(nar.substr(at, chunk_bytes)); !fed) return fed;
  return reader.finish();
}

std::string reason_for(std::string_view nar, const nar_limits& limits = {}) {
  nar_visitor nothing;
  return reason(read_nar(nar, nothing, limits));
}

std::string tree_nar() {
  return read(data("generated/nar/tree.nar"));
}

} // namespace

TEST_CASE("written NARs, their hashes and their store paths are the oracle's") {
  const auto expected_all = read_json(data("generated/nar/expected.json"));
  std::size_t rows = 0, encodings = 0, store_paths = 0;
  for (const auto& [name, row] : expected_all.items()) {
    INFO(name);
    const auto& expect = row.at("expect");
    const auto& tree = row.at("tree");
    const auto nar = tree.is_string() ? nar_of_file(std::string(70'000, '\0')) // described, not given
                                      : nar_of([&](nar_writer& to) { write_tree(to, tree); });
    if (!tree.is_string()) CHECK(nar == read(data("generated/nar/" + name + ".nar")));
    CHECK(nar.size() == expect.at("narSize"));
    for (const auto algo : all_algos) {
      const auto& forms = expect.at(std::string{to_string(algo)});
      const auto made = hash_of(algo, nar);
      CHECK(made.base16() == forms.at("base16"));
      CHECK(made.base32() == forms.at("base32"));
      CHECK(made.sri() == forms.at("sri"));
      encodings += 3;
    }
    const auto same = [&](const char* how, const store_path& made) {
      CHECK(made.to_string() == expect.at(how));
      ++store_paths;
    };
    same("addPath", good(source_path(name, sha256(nar))));
    same("addFixedRecursiveSha1",
         good(fixed_output_path(name, content_method::recursive, hash_of(hash_algo::sha1, nar))));
    if (expect.contains("addFixedFlatSha256")) {
      const auto content = good(hash::parse_any(expect.at("flat-sha256").get<std::string>(), hash_algo::sha256));
      same("addFixedFlatSha256", good(fixed_output_path(name, content_method::flat, content)));
    }
    ++rows;
  }
  CHECK(rows == 14);
  CHECK(encodings == 14 * 12);
  CHECK(store_paths == 36);
}

TEST_CASE("what is read from a valid NAR makes the same NAR again, in chunks of any size") {
  const auto all = valid_nars();
  CHECK(all.size() == 24);
  for (const auto& file : all) {
    INFO(file);
    const auto nar = read(file);
    copying_visitor whole;
    good(read_nar(nar, whole));
    CHECK(whole.copy == nar);
    for (const std::size_t chunk_bytes : {1, 2, 3, 7, 8, 9, 31, 64, 1000}) {
      INFO("chunks of " << chunk_bytes);
      copying_visitor pieces;
      good(read_in(nar, chunk_bytes, pieces));
      CHECK(pieces.log == whole.log);
      CHECK(pieces.copy == nar);
    }
  }
}

TEST_CASE("the events of a NAR tell what is in it, in order") {
  copying_visitor told;
  good(read_nar(read(data("from-tvix/nar/complicated.nar")), told));
  CHECK(told.log.front() == "directory");
  CHECK(told.log.back() == "end");
  copying_visitor executable;
  good(read_nar(read(data("from-harmonia/nar_parse/test-exec.nar")), executable));
  CHECK(executable.log == std::vector<std::string>{"executable 15", "end_regular", "end"});
}

TEST_CASE("malformed NARs of the Nix project are refused with a reason") {
  const std::map<std::string, std::string> reasons = {
      {"dot.nar", "entry name '.'"},
      {"dotdot.nar", "entry name '..'"},
      {"empty.nar", "entry name ''"},
      {"slash.nar", "entry name 'x/y'"},
      {"nul-character.nar", "entry name 'f\\x00o'"},
      {"executable-after-contents.nar", "expected ')'"},
      {"invalid-tag-instead-of-contents.nar", "found 'AAAAAAAA'"},
      {"name-after-node.nar", "expected 'name'"},
      {"regular-one-byte-non-zero-padding.nar", "padding"},
      {"regular-truncated-large-contents.nar", "a file of 18446744073709551615 bytes"},
      {"regular-truncated-padding.nar", "too early"},
  };
  std::size_t rows = 0;
  for (const auto& file : files("from-nix/nars", ".nar")) {
    const auto name = file.filename().string();
    if (name == "regular-one-byte-zero-padding.nar") continue; // valid
    INFO(name);
    const auto nar = read(file);
    CHECK(reason_for(nar).find(reasons.at(name)) != std::string::npos);
    nar_visitor nothing;
    CHECK(reason(read_in(nar, 1, nothing)) == reason_for(nar));
    ++rows;
  }
  CHECK(rows == 11);
}

TEST_CASE("a NAR cut short anywhere is refused") {
  const auto nar = tree_nar();
  for (std::size_t size = 0; size < nar.size(); ++size) {
    INFO(size);
    CHECK_FALSE(reason_for(nar.substr(0, size)).empty());
  }
}

TEST_CASE("a NAR with a byte behind it is refused by feed, and left alone by feed_some") {
  const auto nar = tree_nar();
  CHECK(reason_for(nar + '\0').find("after its end") != std::string::npos);
  nar_visitor nothing;
  nar_reader reader{nothing};
  CHECK(good(reader.feed_some(nar + "more")) == nar.size());
  CHECK(reader.done());
  CHECK(good(reader.feed_some("more")) == 0);
  good(reader.finish());
}

TEST_CASE("a NAR with any byte changed is refused or tells something else") {
  const auto nar = read(data("generated/nar/newline-name.nar"));
  copying_visitor right;
  good(read_nar(nar, right));
  for (std::size_t i = 0; i < nar.size(); ++i) {
    INFO(i);
    auto changed = nar;
    changed[i] = static_cast<char>(changed[i] ^ 0x40);
    copying_visitor told;
    const auto outcome = read_nar(changed, told);
    if (outcome) CHECK(told.copy == changed); // then it is another NAR, canonical in itself
  }
}

TEST_CASE("names that stand out of order or twice are refused") {
  const auto directory_of = [](const std::string& first, const std::string& second) {
    auto nar = nar_of([&](nar_writer& to) {
      to.begin_directory();
      for (const auto* name : {"a", "b"}) {
        to.entry(name);
        to.symlink("t");
      }
      to.end_directory();
    });
    std::string word_a, word_b, word_first, word_second;
    append_word(word_a, "a");
    append_word(word_b, "b");
    append_word(word_first, first);
    append_word(word_second, second);
    nar.replace(nar.find(word_b), word_b.size(), word_second);
    nar.replace(nar.find(word_a), word_a.size(), word_first);
    return nar;
  };
  nar_visitor nothing;
  good(read_nar(directory_of("a", "b"), nothing));
  good(read_nar(directory_of("B", "a"), nothing));
  good(read_nar(directory_of("a", "\xff"), nothing));
  CHECK(reason_for(directory_of("b", "a")).find("stands after 'b'") != std::string::npos);
  CHECK(reason_for(directory_of("\xff", "a")).find("stands after") != std::string::npos);
  CHECK(reason_for(directory_of("a", "a")).find("twice") != std::string::npos);
}

TEST_CASE("parts larger than their limits are refused") {
  const auto file = nar_of_file("12345");
  CHECK(reason_for(file, {.file_bytes_max = 4}).find("more than 4") != std::string::npos);
  const auto link = nar_of([](nar_writer& to) { to.symlink("12345"); });
  CHECK(reason_for(link, {.target_bytes_max = 4}).find("more than 4") != std::string::npos);
  const auto entry = nar_of([](nar_writer& to) {
    to.begin_directory();
    for (const auto* name : {"12345", "12346"}) {
      to.entry(name);
      to.symlink("t");
    }
    to.end_directory();
  });
  CHECK(reason_for(entry, {.name_bytes_max = 4}).find("more than 4") != std::string::npos);
  CHECK(reason_for(entry, {.entries_max = 1}).find("more than 1 entries") != std::string::npos);
  nar_visitor nothing;
  good(read_nar(entry, nothing, {.depth_max = 1, .name_bytes_max = 5, .entries_max = 2}));
}

TEST_CASE("directories inside each other are bounded, and read without recursion") {
  const auto nested = [](std::size_t depth) {
    return nar_of([&](nar_writer& to) {
      for (std::size_t i = 0; i < depth; ++i) {
        to.begin_directory();
        if (i + 1 < depth) to.entry("d");
      }
      for (std::size_t i = 0; i < depth; ++i)
        to.end_directory();
    });
  };
  nar_visitor nothing;
  good(read_nar(nested(100'000), nothing, {.depth_max = 100'000}));
  good(read_nar(nested(1024), nothing));
  CHECK(reason_for(nested(1025)).find("more than 1024 directories") != std::string::npos);
}

TEST_CASE("an empty link target, and one with a NUL, are refused") {
  for (const auto target : {std::string_view{}, std::string_view{"a\0b", 3}}) {
    const auto nar = nar_of([&](nar_writer& to) { to.symlink(target); });
    CHECK(reason_for(nar).find("link target") != std::string::npos);
  }
}

TEST_CASE("a visitor's failure ends the reading, now and later") {
  class refusing final : public nar_visitor {
    expected<void> entry(std::string_view name) override { return fail("no room for ", name); }
  } visitor;
  nar_reader reader{visitor};
  const auto nar = tree_nar();
  const auto why = reason(reader.feed(nar));
  CHECK(why.starts_with("no room for "));
  CHECK(reason(reader.feed("x")) == why);
  CHECK(reason(reader.finish()) == why);
}

TEST_CASE("a writer told events in a wrong order says so") {
  const auto wrong = [](auto events) {
    nar_writer to{[](std::string_view) {}};
    CHECK_THROWS_AS(events(to), std::logic_error);
  };
  wrong([](nar_writer& to) { to.finish(); });
  wrong([](nar_writer& to) { to.entry("a"); });
  wrong([](nar_writer& to) { to.end_directory(); });
  wrong([](nar_writer& to) { to.contents("a"); });
  wrong([](nar_writer& to) { to.regular(false, 1), to.contents("ab"); });
  wrong([](nar_writer& to) { to.regular(false, 2), to.contents("a"), to.finish(); });
  wrong([](nar_writer& to) { to.symlink("a"), to.symlink("b"); });
  wrong([](nar_writer& to) { to.begin_directory(), to.entry("b"), to.symlink("t"), to.entry("a"); });
  wrong([](nar_writer& to) { to.begin_directory(), to.entry("a"), to.symlink("t"), to.entry("a"); });
  wrong([](nar_writer& to) { to.begin_directory(), to.entry(".."); });
  wrong([](nar_writer& to) { to.begin_directory(), to.entry("a"), to.end_directory(); });
}

TEST_CASE("contents reach the sink as they come, small pieces together") {
  std::vector<std::size_t> sizes;
  nar_writer to{[&](std::string_view bytes) { sizes.push_back(bytes.size()); }};
  const std::string big(1'000'000, 'x');
  to.regular(false, big.size());
  to.contents(big);
  to.finish();
  CHECK(sizes.size() == 3); // what stands before, the contents, what stands behind
  CHECK(sizes.at(1) == big.size());
}

TEST_CASE("the byte of wrong padding is told alike however the NAR is cut into pieces") {
  const auto nar = read(data("from-nix/nars/regular-one-byte-non-zero-padding.nar"));
  nar_visitor nobody;
  const auto whole = read_nar(nar, nobody);
  REQUIRE_FALSE(whole);
  for (std::size_t piece = 1; piece < 64; ++piece) {
    nar_reader reader{nobody};
    expected<void> fed;
    for (std::size_t at = 0; fed && at < nar.size(); at += piece)
      fed = reader.feed(nar.substr(at, piece));
    REQUIRE_FALSE(fed);
    CHECK(fed.error().what == whole.error().what);
  }
}
