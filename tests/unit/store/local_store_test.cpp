#include "store/local_store.hpp"
#include "store/pack.hpp"
#include "store/path_records.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <sys/wait.h>

#include <thread>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

local_store_options options_in(const fs::path& root) {
  local_store_options options;
  options.root = root;
  options.belongs_to = me();
  return options;
}

std::unique_ptr<local_store> open_in(const fs::path& root) {
  auto store = good(local_store::open(options_in(root)));
  CHECK(store->problems() == std::vector<std::string>{});
  return store;
}

/// The NAR of a tree with these contents, and what is to be known of it.
struct object {
  std::string nar;
  path_info info;
};

object object_named(const std::string& name, const std::string& contents,
                    std::vector<nix::store_path> references = {}) {
  object o;
  o.nar = make_nar([&](nix::nar_writer& w) {
    w.begin_directory();
    w.entry("file");
    w.regular(false, contents.size());
    w.contents(contents);
    w.end_directory();
  });
  o.info.path = path_named(name);
  o.info.nar_hash.bytes = nix::sha256(o.nar);
  o.info.nar_size = o.nar.size();
  o.info.references = std::move(references);
  std::sort(o.info.references.begin(), o.info.references.end());
  return o;
}

void add(local_store& store, const object& o) {
  good(store.add_from_nar(o.info, source_of(o.nar)));
}

/// A canonical tree of the object in a staging directory.
std::pair<path_info, fs::path> staged(local_store& store, const object& o) {
  const auto tree = good(store.staging()) / "out";
  good(restore_path(tree, source_of(o.nar), me()));
  return {o.info, tree};
}

/// Runs `act` in a process that ends without destructors, as a crash would, and is told to succeed by returning true.
template <class Act>
void crash_after(Act act) {
  if (const auto child = ::fork(); child == 0) {
    ::_exit(act() ? 0 : 1);
  } else {
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(status == 0);
  }
}

} // namespace

TEST_CASE("a path added from its NAR is valid, also after the next open") {
  const scratch_dir dir;
  auto o = object_named("a", "contents", {path_named("dep"), path_named("a")});
  o.info.deriver = path_named("a.drv");
  o.info.ca = "fixed:r:sha256:" + nix::hash_of(nix::hash_algo::sha256, "x").base32();
  o.info.blob.bytes = nix::sha256("blob");
  o.info.blob_size = 17;
  o.info.gen.value = 5;
  add(*open_in(dir / "s"), o);
  const auto store = open_in(dir / "s");
  CHECK(store->query(o.info.path) == o.info);
  CHECK(nar_of(store->real_path(o.info.path)) == o.nar);
  CHECK(store->paths() == std::vector{o.info.path});
  CHECK_FALSE(store->query(path_named("dep")));
}

TEST_CASE("one flipped byte makes a NAR corrupt and nothing of it stays") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  const auto before = entries_below(dir);
  auto o = object_named("a", "contents");
  for (std::size_t at = 0; at < o.nar.size(); ++at) {
    auto nar = o.nar;
    nar[at] = static_cast<char>(nar[at] ^ 1);
    INFO("byte " << at);
    REQUIRE(code_of(store->add_from_nar(o.info, source_of(nar))) == ec::corrupt);
  }
  CHECK_FALSE(store->query(o.info.path));
  CHECK(entries_below(dir) == before);
}

TEST_CASE("a NAR of another size than stated is corrupt") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  auto o = object_named("a", "contents");
  SECTION("stated too small") {
    o.info.nar_size -= 8;
  }
  SECTION("stated too large") {
    o.info.nar_size += 8;
  }
  CHECK(code_of(store->add_from_nar(o.info, source_of(o.nar))) == ec::corrupt);
  CHECK(entries_below(store->real_dir()) == 0);
}

TEST_CASE("the error of a source is passed on and nothing stays") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  const auto before = entries_below(dir);
  const auto o = object_named("a", "contents");
  const auto added = store->add_from_nar(o.info, [&](const byte_sink& sink) -> expected<void> {
    good(sink(o.nar.substr(0, 150)));
    return fail(ec::peer_down, "gone");
  });
  CHECK(code_of(added) == ec::peer_down);
  CHECK(entries_below(dir) == before);
}

TEST_CASE("a path that is valid already is not fetched again, nor replaced by other bytes") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  const auto o = object_named("a", "contents"), other = object_named("a", "different");
  add(*store, o);
  const byte_source never = [](const byte_sink&) -> expected<void> { throw std::logic_error("not to be called"); };
  good(store->add_from_nar(o.info, never));
  CHECK(code_of(store->add_from_nar(other.info, never)) == ec::conflict);
  CHECK(nar_of(store->real_path(o.info.path)) == o.nar);
}

TEST_CASE("what lies at a path without being valid gives way") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  const auto o = object_named("a", "contents");
  fs::create_directory(store->real_path(o.info.path));
  write(store->real_path(o.info.path) / "left-over", "x");
  REQUIRE(::chmod(store->real_path(o.info.path).c_str(), 0555) == 0);
  add(*store, o);
  CHECK(nar_of(store->real_path(o.info.path)) == o.nar);
}

TEST_CASE("a closure is complete and has references first, or names what is missing") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  const auto c = object_named("c", "c", {path_named("c")});
  const auto b = object_named("b", "b", {c.info.path});
  const auto a = object_named("a", "a", {b.info.path, c.info.path});
  add(*store, a);
  add(*store, b);
  const auto incomplete = store->closure(std::vector{a.info.path});
  CHECK(code_of(incomplete) == ec::missing);
  CHECK(incomplete.error().what.find(c.info.path.base_name()) != std::string::npos);
  add(*store, c);
  CHECK(good(store->closure(std::vector{a.info.path, c.info.path})) == std::vector{c.info, b.info, a.info});
}

TEST_CASE("outputs are moved into place and valid together") {
  const scratch_dir dir;
  const auto out = object_named("out", "1", {path_named("dev")}), dev = object_named("dev", "2", {path_named("out")});
  {
    const auto store = open_in(dir / "s");
    good(store->add_outputs({staged(*store, out), staged(*store, dev)}));
  }
  const auto store = open_in(dir / "s");
  CHECK(store->query(out.info.path) == out.info);
  CHECK(store->query(dev.info.path) == dev.info);
  CHECK(nar_of(store->real_path(dev.info.path)) == dev.nar);
  CHECK(fs::is_empty(dir / "s/staging"));
  CHECK(fs::is_empty(dir / "s/groups"));
}

TEST_CASE("if one output cannot be moved none is valid and none stays") {
  const scratch_dir dir;
  const auto one = object_named("one", "1"), two = object_named("two", "2");
  const auto store = open_in(dir / "s");
  CHECK(code_of(store->add_outputs({staged(*store, one), {two.info, dir / "nothing"}})) == ec::missing);
  CHECK_FALSE(store->query(one.info.path));
  CHECK(entries_below(store->real_dir()) == 0);
  CHECK(open_in(dir / "s")->paths().empty());
}

TEST_CASE("if one record cannot be written no output is valid, now or after the next open") {
  const scratch_dir dir;
  const auto one = object_named("one", "1"), two = object_named("two", "2");
  {
    const auto store = open_in(dir / "s");
    fs::create_directories(dir / "s/valid" / two.info.path.base_name() / "in-the-way");
    CHECK_FALSE(store->add_outputs({staged(*store, one), staged(*store, two)}));
    CHECK_FALSE(store->query(one.info.path));
    CHECK_FALSE(store->query(two.info.path));
  }
  fs::remove_all(dir / "s/valid" / two.info.path.base_name());
  CHECK(open_in(dir / "s")->paths().empty());
}

TEST_CASE("an output that is valid with other bytes stops the whole group") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  const auto one = object_named("one", "1"), two = object_named("two", "2"), other = object_named("two", "other");
  add(*store, other);
  const auto staged_one = staged(*store, one);
  CHECK(code_of(store->add_outputs({staged_one, staged(*store, two)})) == ec::conflict);
  CHECK_FALSE(store->query(one.info.path));
  CHECK(is_there(staged_one.second));
  CHECK(nar_of(store->real_path(two.info.path)) == other.nar);
}

TEST_CASE("a crash after the trees are in place and before anything is recorded leaves nothing valid") {
  const scratch_dir dir;
  const auto one = object_named("one", "1"), two = object_named("two", "2");
  open_in(dir / "s");
  for (const auto* o : {&one, &two})
    good(restore_path(dir / ("s/store/" + o->info.path.base_name()), source_of(o->nar), me()));
  const auto store = open_in(dir / "s");
  CHECK(store->paths().empty());
  CHECK(entries_below(store->real_dir()) == 0);
}

TEST_CASE("a crash between the records of a group leaves all of it valid") {
  const scratch_dir dir;
  const auto one = object_named("one", "1"), two = object_named("two", "2");
  std::string group;
  open_in(dir / "s");
  for (const auto* o : {&one, &two}) {
    good(restore_path(dir / ("s/store/" + o->info.path.base_name()), source_of(o->nar), me()));
    group += nix::print_narinfo(to_narinfo(o->info));
  }
  write(dir / ("s/groups/" + one.info.path.base_name()), group);
  write(dir / ("s/valid/" + one.info.path.base_name()), nix::print_narinfo(to_narinfo(one.info)));
  const auto store = open_in(dir / "s");
  CHECK(store->query(one.info.path) == one.info);
  CHECK(store->query(two.info.path) == two.info);
  CHECK(fs::is_empty(dir / "s/groups"));
}

TEST_CASE("a group record that is damaged makes none of its paths valid") {
  const scratch_dir dir;
  const auto one = object_named("one", "1"), two = object_named("two", "2");
  open_in(dir / "s");
  good(restore_path(dir / ("s/store/" + one.info.path.base_name()), source_of(one.nar), me()));
  const auto group = nix::print_narinfo(to_narinfo(one.info)) + nix::print_narinfo(to_narinfo(two.info));
  write(dir / ("s/groups/" + one.info.path.base_name()), group.substr(0, group.size() - 5));
  const auto store = good(local_store::open(options_in(dir / "s")));
  CHECK(store->paths().empty());
  CHECK(store->problems().size() == 1);
}

TEST_CASE("staging directories of a process that died are swept at open") {
  const scratch_dir dir;
  open_in(dir / "s");
  crash_after([&] {
    const auto store = local_store::open(options_in(dir / "s"));
    const auto staging = (*store)->staging();
    return staging && restore_path(*staging / "x", source_of(object_named("a", "x").nar), me());
  });
  CHECK_FALSE(fs::is_empty(dir / "s/staging"));
  open_in(dir / "s");
  CHECK(fs::is_empty(dir / "s/staging"));
}

TEST_CASE("records that cannot be read or whose files are gone are told and left out") {
  const scratch_dir dir;
  const auto a = object_named("a", "1"), b = object_named("b", "2"), c = object_named("c", "3");
  {
    const auto store = open_in(dir / "s");
    for (const auto* o : {&a, &b, &c})
      add(*store, *o);
    good(remove_tree(store->real_path(a.info.path)));
  }
  write(dir / ("s/valid/" + b.info.path.base_name()), "StorePath: torn");
  write(dir / "s/valid/foreign", "what is this?");
  const auto store = good(local_store::open(options_in(dir / "s")));
  CHECK(store->problems().size() == 3);
  CHECK(store->paths() == std::vector{c.info.path});
}

TEST_CASE("a path goes only when neither a pin nor another path wants it") {
  const scratch_dir dir;
  const auto b = object_named("b", "2", {path_named("b")}), a = object_named("a", "1", {b.info.path});
  {
    const auto store = open_in(dir / "s");
    add(*store, b);
    add(*store, a);
    auto pin = store->pin({a.info.path});
    auto copy = pin;
    pin.reset();
    CHECK(store->pins() == std::vector<std::set<nix::store_path>>{{a.info.path}});
    CHECK(code_of(store->remove(a.info.path)) == ec::conflict);
    CHECK(code_of(store->remove(b.info.path)) == ec::conflict);
    copy.reset();
    CHECK(store->pins().empty());
    good(store->remove(a.info.path));
    good(store->remove(b.info.path));
    good(store->remove(b.info.path));
    CHECK(entries_below(store->real_dir()) == 0);
    add(*store, a);
  }
  const auto store = open_in(dir / "s");
  good(store->remove(a.info.path));
  CHECK(open_in(dir / "s")->paths().empty());
}

TEST_CASE("a full disk makes nothing valid and leaves nothing behind") {
  const small_disk disk{"1m"};
  if (!disk.mounted()) return;
  const auto store = open_in(disk / "s");
  const auto before = entries_below(disk);
  const auto large = object_named("large", std::string(2 << 20, 'x'));
  CHECK(code_of(store->add_from_nar(large.info, source_of(large.nar))) == ec::storage_full);
  CHECK(entries_below(disk) == before);
  add(*store, object_named("small", "x"));
}

TEST_CASE("a disk that fills up while outputs are recorded makes none of them valid") {
  const small_disk disk{"256k"};
  if (!disk.mounted()) return;
  const auto one = object_named("one", "1"), two = object_named("two", "2");
  auto store = open_in(disk / "s");
  const std::vector outputs{staged(*store, one), staged(*store, two)};
  const rt::unique_fd filler{::open((disk / "filler").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)};
  while (write_all(filler.get(), std::string(4096, 'x'), "filler")) {
  }
  CHECK(code_of(store->add_outputs(outputs)) == ec::storage_full);
  CHECK_FALSE(store->query(one.info.path));
  CHECK(entries_below(store->real_dir()) == 0);
  REQUIRE(::ftruncate(filler.get(), 0) == 0);
  CHECK(open_in(disk / "s")->paths().empty());
}

TEST_CASE("several threads may add one path and others at the same time") {
  const scratch_dir dir;
  const auto store = open_in(dir / "s");
  std::vector<object> objects;
  for (int i = 0; i < 8; ++i)
    objects.push_back(object_named("o" + std::to_string(i), std::string(10'000, 'x')));
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (const auto& o : objects)
        if (!store->add_from_nar(o.info, source_of(o.nar)) || !store->query(o.info.path)) ++failures;
    });
  for (auto& thread : threads)
    thread.join();
  CHECK(failures == 0);
  CHECK(open_in(dir / "s")->paths().size() == objects.size());
}

TEST_CASE("real files may lie in a directory of their own, which is not swept") {
  const scratch_dir dir;
  auto options = options_in(dir / "s");
  options.real_dir = dir / "nix-store";
  fs::create_directory(dir / "nix-store");
  write(dir / "nix-store/somebody-else", "x");
  const auto o = object_named("a", "contents");
  add(*good(local_store::open(options)), o);
  const auto store = good(local_store::open(options));
  CHECK(store->query(o.info.path) == o.info);
  CHECK(nar_of(dir / "nix-store" / o.info.path.base_name()) == o.nar);
  CHECK(is_there(dir / "nix-store/somebody-else"));
}
