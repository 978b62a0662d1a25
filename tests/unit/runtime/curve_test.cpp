#include "runtime/curve.hpp"

#include <catch2/catch.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

using namespace coppice;
using namespace coppice::rt;
namespace fs = std::filesystem;

namespace {

struct directory_fixture {
  fs::path dir;
  directory_fixture() {
    std::string pattern = (fs::temp_directory_path() / "coppice-curve-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
  }
  ~directory_fixture() { fs::remove_all(dir); }
  directory_fixture(const directory_fixture&) = delete;
  directory_fixture& operator=(const directory_fixture&) = delete;

  key_file a_key() const {
    auto k = make_keys();
    return {"lena's \"laptop\"", role::submitter, k.public_key, k.secret_key, make_keys().public_key};
  }
  void put(const char* name, std::string_view text) const { std::ofstream{dir / name} << text; }
};

ec code(const auto& x) {
  return x ? ec::none : x.error().code;
}

} // namespace

TEST_CASE("keys are z85 of 40 characters and differ") {
  auto a = make_keys(), b = make_keys();
  CHECK(is_key(a.public_key));
  CHECK(is_key(a.secret_key));
  CHECK(a.public_key != b.public_key);
  CHECK_FALSE(is_key(""));
  CHECK_FALSE(is_key(a.public_key + "0"));
  CHECK_FALSE(is_key(std::string(39, '0') + "~"));
}

TEST_CASE_METHOD(directory_fixture, "a key file reads back and only its owner may read it") {
  auto key = a_key();
  REQUIRE(write_key_file(dir / "k.toml", key));
  CHECK(read_key_file(dir / "k.toml") == key);
  struct stat info {};
  REQUIRE(::stat((dir / "k.toml").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE_METHOD(directory_fixture, "a key file is never overwritten") {
  REQUIRE(write_key_file(dir / "k.toml", a_key()));
  CHECK(code(write_key_file(dir / "k.toml", a_key())) == ec::conflict);
  CHECK(std::distance(fs::directory_iterator{dir}, {}) == 1);
}

TEST_CASE_METHOD(directory_fixture, "a key that others may read is refused") {
  REQUIRE(write_key_file(dir / "k.toml", a_key()));
  fs::permissions(dir / "k.toml", fs::perms::group_read, fs::perm_options::add);
  CHECK(code(read_key_file(dir / "k.toml")) == ec::invalid);
}

TEST_CASE_METHOD(directory_fixture, "a public key that does not belong to its secret is refused") {
  auto key = a_key();
  key.public_key = make_keys().public_key;
  CHECK(code(write_key_file(dir / "k.toml", key)) == ec::invalid);
  CHECK(code(read_key_file(dir / "none.toml")) == ec::not_found);
}

TEST_CASE_METHOD(directory_fixture, "an allow-list reads back") {
  authorized_keys keys{{{"a", role::node, make_keys().public_key}, {"b \"c\"", role::admin, make_keys().public_key}}};
  REQUIRE(write_authorized(dir / "authorized.toml", keys));
  CHECK(read_authorized(dir / "authorized.toml") == keys);
}

TEST_CASE_METHOD(directory_fixture, "an allow-list with bad entries is refused as a whole") {
  auto k = make_keys().public_key;
  for (const auto& text :
       {"[[key]]\nname = \"\"\npublic_key = '" + k + "'", std::string{"[[key]]\nname = \"a\"\npublic_key = \"short\""},
        "[[key]]\nname = \"a\"\npublic_key = '" + k + "'\n[[key]]\nname = \"b\"\npublic_key = '" + k + "'",
        "[[key]]\nname = \"a\"\nrole = \"root\"\npublic_key = '" + k + "'"}) {
    put("authorized.toml", text);
    CHECK(code(read_authorized(dir / "authorized.toml")) == ec::invalid);
  }
}

TEST_CASE_METHOD(directory_fixture, "a list follows its file: added, revoked, broken, gone") {
  auto one = make_keys().public_key, two = make_keys().public_key;
  allow_list list{dir / "authorized.toml"};
  CHECK(list.refresh());
  CHECK(list.find(one) == nullptr);

  REQUIRE(write_authorized(dir / "authorized.toml", {{{"one", role::submitter, one}}}));
  CHECK(list.refresh() == true);
  REQUIRE(list.find(one));
  CHECK(list.find(one)->name == "one");
  CHECK(list.find(one)->role == role::submitter);
  CHECK(list.refresh() == false);

  REQUIRE(write_authorized(dir / "authorized.toml", {{{"two", role::node, two}}}));
  CHECK(list.refresh() == true);
  CHECK(list.find(one) == nullptr);
  CHECK(list.find(two) != nullptr);

  put("authorized.toml", "not toml at all =");
  CHECK_FALSE(list.refresh()); // said once
  CHECK(list.refresh() == false);
  CHECK(list.find(two) != nullptr);

  fs::remove(dir / "authorized.toml");
  CHECK(list.refresh() == true);
  CHECK(list.size() == 0);
}

TEST_CASE_METHOD(directory_fixture, "of changes to a list that are made at once none is lost") {
  const auto file = dir / "authorized.toml";
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i)
    writers.emplace_back([&, i] {
      auto done = edit_authorized(file, [i](authorized_keys& keys) -> expected<void> {
        keys.key.push_back({"key " + std::to_string(i), role::submitter, make_keys().public_key});
        return {};
      });
      if (!done) throw std::runtime_error(done.error().what);
    });
  for (auto& writer : writers)
    writer.join();
  auto keys = read_authorized(file);
  REQUIRE(keys);
  CHECK(keys->key.size() == writers.size());
}

TEST_CASE_METHOD(directory_fixture, "a change that fails leaves the list as it was") {
  const auto file = dir / "authorized.toml";
  const authorized_keys before{{{"a", role::node, make_keys().public_key}}};
  REQUIRE(write_authorized(file, before));
  const auto refused = [](authorized_keys& keys) -> expected<void> {
    keys.key.clear();
    return fail(ec::not_found, "no");
  };
  CHECK(code(edit_authorized(file, refused)) == ec::not_found);
  CHECK(read_authorized(file) == before);
  put("authorized.toml", "not toml at all =");
  CHECK(code(edit_authorized(file, [](authorized_keys&) { return expected<void>{}; })) == ec::invalid);
}
