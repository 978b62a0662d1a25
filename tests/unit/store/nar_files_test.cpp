#include "store/nar_files.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <array>
#include <cstdio>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

const fs::path nars = fs::path{COPPICE_TEST_DATA} / "nix/generated/nar";

std::string output_of(const std::string& command) {
  std::string output;
  std::unique_ptr<FILE, int (*)(FILE*)> pipe{::popen(command.c_str(), "r"), &::pclose};
  REQUIRE(pipe);
  std::array<char, 4096> block;
  while (const auto got = std::fread(block.data(), 1, block.size(), pipe.get()))
    output.append(block.data(), got);
  return output;
}

/// A tree with all that a NAR can hold.
void make_tree(const fs::path& dir) {
  fs::create_directories(dir / "sub/empty");
  write(dir / "sub/file", "contents", 0640);
  write(dir / "sub/tool", "#!/bin/sh\n", 0750);
  write(dir / "nothing", "");
  write(dir / "large", std::string(1'000'001, 'x'));
  fs::create_symlink("sub/file", dir / "link");
  fs::create_symlink("/nowhere", dir / "dangling");
}

} // namespace

TEST_CASE("every generated NAR comes back byte for byte after a restore and a dump") {
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator{nars}) {
    if (entry.path().extension() != ".nar") continue;
    const scratch_dir dir;
    INFO(entry.path());
    const auto nar = read(entry.path());
    good(restore_path(dir / "tree", source_of(nar, 13), me()));
    CHECK(nar_of(dir / "tree") == nar);
    ++count;
  }
  CHECK(count >= 13);
}

TEST_CASE("a dump is the one that stock Nix makes") {
  if (output_of("command -v nix-store").empty()) {
    WARN("nix-store is not installed: not compared with it");
    return;
  }
  const scratch_dir dir;
  make_tree(dir / "tree");
  const auto there = fs::path{dir}.string();
  const auto dumped = output_of("HOME=" + there + " NIX_STATE_DIR=" + there + "/var NIX_STORE_DIR=" + there +
                                "/store nix-store --dump " + there + "/tree");
  const bool equal = nar_of(dir / "tree") == dumped; // not shown: a megabyte
  CHECK(equal);
}

TEST_CASE("a restored tree has canonical metadata") {
  const scratch_dir dir;
  make_tree(dir / "from");
  good(restore_path(dir / "tree", source_of(nar_of(dir / "from")), me()));
  const auto mode = [&](const std::string& name) { return stat_of(dir / ("tree" + name)).st_mode & 07777; };
  CHECK(mode("") == 0555);
  CHECK(mode("/sub/empty") == 0555);
  CHECK(mode("/sub/file") == 0444);
  CHECK(mode("/sub/tool") == 0555);
  for (const auto& name : {"", "/sub", "/sub/file", "/sub/tool", "/link", "/dangling"})
    CHECK(stat_of(dir / ("tree" + std::string{name})).st_mtime == 1);
}

TEST_CASE("files below a symbolic link of the same name never get out of the restored tree") {
  const scratch_dir dir;
  fs::create_directory(dir / "outside");
  // A link and then a directory of its name: no NAR may say so, and the reader refuses; but the restorer is the last
  // line of defence and is asked directly.
  nar_restorer restorer{dir / "tree", me()};
  REQUIRE(restorer.begin_directory());
  REQUIRE(restorer.entry("a"));
  REQUIRE(restorer.symlink("../outside"));
  REQUIRE(restorer.entry("a"));
  SECTION("a directory") {
    CHECK_FALSE(restorer.begin_directory());
  }
  SECTION("a file") {
    CHECK_FALSE(restorer.regular(false, 0));
  }
  CHECK(fs::is_empty(dir / "outside"));
  CHECK(restorer.failure()->code == ec::io);
}

TEST_CASE("a NAR with a link and a directory of one name is corrupt and leaves nothing") {
  const scratch_dir dir;
  auto nar = make_nar([](nix::nar_writer& w) {
    w.begin_directory();
    w.entry("a");
    w.symlink("/tmp");
    w.entry("b");
    w.begin_directory();
    w.entry("x");
    w.regular(false, 0);
    w.end_directory();
    w.end_directory();
  });
  nar[nar.find("b\0\0\0\0\0\0\0", 0, 8)] = 'a';
  CHECK(code_of(restore_path(dir / "tree", source_of(nar), me())) == ec::corrupt);
  CHECK_FALSE(is_there(dir / "tree"));
}

TEST_CASE("a NAR that is cut off is corrupt and leaves nothing") {
  const scratch_dir dir;
  make_tree(dir / "from");
  const auto nar = nar_of(dir / "from");
  CHECK(code_of(restore_path(dir / "tree", source_of(nar.substr(0, nar.size() - 100)), me())) == ec::corrupt);
  CHECK_FALSE(is_there(dir / "tree"));
}

TEST_CASE("restoring over something that exists fails and leaves it alone") {
  const scratch_dir dir;
  write(dir / "tree", "mine");
  CHECK(code_of(restore_path(dir / "tree", source_of(read(nars / "tree.nar")), me())) == ec::io);
  CHECK(read(dir / "tree") == "mine");
}

TEST_CASE("a disk that is full while a NAR is restored is told as such and nothing is left") {
  const small_disk disk{"1m"};
  if (!disk.mounted()) return;
  const auto nar = make_nar([](nix::nar_writer& w) {
    w.regular(false, 4 << 20);
    w.contents(std::string(4 << 20, 'x'));
  });
  CHECK(code_of(restore_path(disk / "tree", source_of(nar), me())) == ec::storage_full);
  CHECK(fs::is_empty(fs::path{disk}));
}

TEST_CASE("canonicalise fixes modes, times and attributes, and drops setuid") {
  const scratch_dir dir;
  make_tree(dir / "tree");
  REQUIRE(::chmod((dir / "tree/sub/tool").c_str(), 06755) == 0);
  const bool attributes = ::setxattr((dir / "tree/sub/file").c_str(), "user.test", "1", 1, 0) == 0;
  if (!attributes) WARN("no extended attributes here");
  REQUIRE(::chmod((dir / "tree/sub/file").c_str(), 0400) == 0);
  good(canonicalise(dir / "tree", me()));
  CHECK((stat_of(dir / "tree").st_mode & 07777) == 0555);
  CHECK((stat_of(dir / "tree/sub/tool").st_mode & 07777) == 0555);
  CHECK((stat_of(dir / "tree/sub/file").st_mode & 07777) == 0444);
  for (const auto& name : {"tree", "tree/sub/empty", "tree/sub/tool", "tree/link", "tree/nothing"})
    CHECK(stat_of(dir / name).st_mtime == 1);
  CHECK(::listxattr((dir / "tree/sub/file").c_str(), nullptr, 0) <= 0);
}

TEST_CASE("canonicalise leaves what a symbolic link points to alone") {
  const scratch_dir dir;
  write(dir / "outside", "x", 0666);
  fs::create_directory(dir / "tree");
  fs::create_symlink("../outside", dir / "tree/link");
  good(canonicalise(dir / "tree", me()));
  CHECK((stat_of(dir / "outside").st_mode & 07777) == 0666);
  CHECK(stat_of(dir / "outside").st_mtime != 1);
}

TEST_CASE("an output that others may write is suspicious") {
  const scratch_dir dir;
  write(dir / "out", "x", 0664);
  const auto refused = canonicalise(dir / "out", me());
  CHECK(code_of(refused) == ec::invalid);
  CHECK(refused.error().what.find("suspicious ownership or permission") != std::string::npos);
}

TEST_CASE("what others may write below an output's top is just made read-only") {
  const scratch_dir dir;
  fs::create_directory(dir / "out");
  write(dir / "out/file", "x", 0666);
  good(canonicalise(dir / "out", me()));
  CHECK((stat_of(dir / "out/file").st_mode & 07777) == 0444);
}

TEST_CASE("hard links between outputs stay, whoever built them") {
  const scratch_dir dir;
  write(dir / "one", "x");
  fs::create_hard_link(dir / "one", dir / "two");
  good(canonicalise({dir / "one", dir / "two"}, me(), ::geteuid()));
  CHECK(stat_of(dir / "one").st_ino == stat_of(dir / "two").st_ino);
  CHECK((stat_of(dir / "two").st_mode & 07777) == 0444);
}

TEST_CASE("a file of another user in an output is suspicious") {
  const scratch_dir dir;
  write(dir / "out", "x");
  CHECK(code_of(canonicalise(dir / "out", me(), ::geteuid() + 1)) == ec::invalid);
}

TEST_CASE("root hands store objects over to their owner") {
  if (::geteuid() != 0) {
    WARN("not root: owners are not tested");
    return;
  }
  const scratch_dir dir;
  make_tree(dir / "tree");
  good(canonicalise(dir / "tree", {12345, 54321}));
  for (const auto& name : {"tree", "tree/sub/file", "tree/link"}) {
    CHECK(stat_of(dir / name).st_uid == 12345);
    CHECK(stat_of(dir / name).st_gid == 54321);
  }
}

TEST_CASE("special files are refused by name") {
  const scratch_dir dir;
  fs::create_directory(dir / "tree");
  const auto special = dir / "tree/special";
  SECTION("a fifo") {
    REQUIRE(::mkfifo(special.c_str(), 0600) == 0);
  }
  SECTION("a socket") {
    const rt::unique_fd fd{::socket(AF_UNIX, SOCK_STREAM, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(special.string().copy(address.sun_path, sizeof address.sun_path - 1) == special.string().size());
    REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  const auto dumped = dump_path(dir / "tree", [](std::string_view) { return expected<void>{}; });
  CHECK(code_of(dumped) == ec::invalid);
  CHECK(dumped.error().what.find(special.string()) != std::string::npos);
  CHECK(code_of(canonicalise(dir / "tree", me())) == ec::invalid);
}

TEST_CASE("a sink that fails ends a dump with its error") {
  const scratch_dir dir;
  make_tree(dir / "tree");
  std::size_t calls = 0;
  const auto dumped = dump_path(dir / "tree", [&](std::string_view) -> expected<void> {
    ++calls;
    return fail(ec::storage_full, "no more");
  });
  CHECK(code_of(dumped) == ec::storage_full);
  CHECK(calls == 1);
}

TEST_CASE("dumping nothing is missing") {
  const scratch_dir dir;
  CHECK(code_of(dump_path(dir / "nothing", [](std::string_view) { return expected<void>{}; })) == ec::missing);
}

TEST_CASE("remove_tree removes read-only trees and is content with nothing") {
  const scratch_dir dir;
  make_tree(dir / "tree");
  good(canonicalise(dir / "tree", me()));
  REQUIRE(::chmod((dir / "tree/sub/empty").c_str(), 0) == 0);
  good(remove_tree(dir / "tree"));
  CHECK_FALSE(is_there(dir / "tree"));
  good(remove_tree(dir / "tree"));
}

TEST_CASE("remove_tree removes links, not what they point to") {
  const scratch_dir dir;
  fs::create_directories(dir / "outside/sub");
  fs::create_directory(dir / "tree");
  fs::create_symlink("../outside", dir / "tree/link");
  good(remove_tree(dir / "tree"));
  CHECK(is_there(dir / "outside/sub"));
}

TEST_CASE("remove_tree stops at a mount point, even at one of the same file system") {
  const scratch_dir dir;
  fs::create_directories(dir / "outside");
  write(dir / "outside/precious", "x");
  fs::create_directories(dir / "tree/mounted");
  if (::mount((dir / "outside").c_str(), (dir / "tree/mounted").c_str(), nullptr, MS_BIND, nullptr) != 0) {
    WARN("cannot mount here (not root?): mount points are not tested");
    return;
  }
  const auto removed = remove_tree(dir / "tree");
  ::umount2((dir / "tree/mounted").c_str(), MNT_DETACH);
  CHECK(code_of(removed) == ec::io);
  CHECK(is_there(dir / "outside/precious"));
}

TEST_CASE("a tree too deep to be stored can still be removed") {
  const scratch_dir dir;
  REQUIRE(fs::create_directory(dir / "tree"));
  rt::unique_fd here{::open((dir / "tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  for (std::size_t i = 0; i < 2 * tree_depth_max; ++i) {
    REQUIRE(::mkdirat(here.get(), "d", 0555) == 0);
    here.reset(::openat(here.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(here);
    REQUIRE(::fchmod(here.get(), 0755) == 0);
  }
  CHECK_FALSE(dump_path(dir / "tree", [](std::string_view) -> expected<void> { return {}; }));
  good(remove_tree(dir / "tree"));
  CHECK_FALSE(fs::exists(dir / "tree"));
}

TEST_CASE("trees deeper than allowed are refused, and those just within are dumped and removed") {
  const scratch_dir dir;
  const auto nested = [](std::size_t depth) {
    return make_nar([&](nix::nar_writer& w) {
      for (std::size_t i = 0; i < depth; ++i) {
        w.begin_directory();
        if (i + 1 < depth) w.entry("d");
      }
      for (std::size_t i = 0; i < depth; ++i)
        w.end_directory();
    });
  };
  const auto deepest = nested(tree_depth_max);
  good(restore_path(dir / "tree", source_of(deepest), me()));
  CHECK(nar_of(dir / "tree") == deepest);
  good(remove_tree(dir / "tree"));
  CHECK_FALSE(restore_path(dir / "tree", source_of(nested(tree_depth_max + 1)), me()));
  CHECK_FALSE(is_there(dir / "tree"));
}

TEST_CASE("move_tree moves read-only directories and never replaces") {
  const scratch_dir dir;
  make_tree(dir / "tree");
  good(canonicalise(dir / "tree", me()));
  const auto nar = nar_of(dir / "tree");
  fs::create_directory(dir / "there");
  good(move_tree(dir / "tree", dir / "there/tree"));
  CHECK(nar_of(dir / "there/tree") == nar);
  CHECK((stat_of(dir / "there/tree").st_mode & 07777) == 0555);
  CHECK(stat_of(dir / "there/tree").st_mtime == 1);
  fs::create_directory(dir / "other");
  CHECK(code_of(move_tree(dir / "other", dir / "there/tree")) == ec::io);
}
