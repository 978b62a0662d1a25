#include "actors/build/log_keeper.hpp"
#include "store/directory_blob_store.hpp"
#include "tests/unit/actors/fake_worker.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <catch2/catch.hpp>

#include <fstream>
#include <thread>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

bool eventually(const std::function<bool()>& f) {
  for (auto end = std::chrono::steady_clock::now() + 5s; std::chrono::steady_clock::now() < end;) {
    if (f()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return f();
}

} // namespace

TEST_CASE("a log that the store does not take is put there until it does, under all its names") {
  std::string pattern = std::filesystem::temp_directory_path() / "coppice-log-XXXXXX";
  const std::filesystem::path dir = ::mkdtemp(pattern.data());
  auto blobs = store::directory_blob_store::open_dir(dir / "cache");
  REQUIRE(blobs);
  std::ofstream{dir / "log"} << "words\n";
  std::filesystem::rename(dir / "cache/.tmp", dir / "away"); // nothing can be begun
  {
    caf::actor_system_config cfg;
    caf::actor_system system{cfg};
    rt::pool pool{1, 10};
    auto worker = rt::spawn<fake_worker>(system, fake_worker::on_exited{}, fake_worker::on_progress{});
    rt::spawn<log_keeper_state>(
        system, log_keeper_state::config{&pool, blobs->get(), dir / "log", {"attempts/a-1.log", "log/a"}, 5ms, 10ms},
        worker, 1);
    std::this_thread::sleep_for(100ms); // some tries
    CHECK(std::filesystem::exists(dir / "log"));
    std::filesystem::rename(dir / "away", dir / "cache/.tmp");
    CHECK(eventually([&] { return !std::filesystem::exists(dir / "log"); }));
    pool.close();
  }
  for (auto* key : {"attempts/a-1.log", "log/a"}) {
    std::ifstream in{dir / "cache" / key};
    CHECK(std::string{std::istreambuf_iterator<char>{in}, {}} == "words\n");
  }
  std::filesystem::remove_all(dir);
}
