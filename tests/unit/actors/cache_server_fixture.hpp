#pragma once

#include "actors/deliver/cache_server.hpp"
#include "nix/export.hpp"
#include "nix/nar.hpp"
#include "runtime/random.hpp"
#include "store/directory_blob_store.hpp"
#include "store/ledger.hpp"

#include <arpa/inet.h>
#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>
#include <httplib.h>
#include <poll.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>

namespace coppice::test {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

struct temporary_directory {
  fs::path path = fs::temp_directory_path() / ("coppice-cache-" + rt::random_secret().substr(0, 16));
  temporary_directory() { fs::create_directories(path); }
  ~temporary_directory() {
    std::error_code ignored; // of a test that failed half way
    for (auto& e : fs::recursive_directory_iterator{path, ignored})
      if (e.is_directory() && !e.is_symlink()) fs::permissions(e.path(), fs::perms::owner_all, ignored);
    fs::remove_all(path, ignored);
  }
};

inline void write_file(const fs::path& file, std::string_view bytes, std::ios::openmode how = std::ios::trunc) {
  std::ofstream out{file, std::ios::binary | how};
  out << bytes;
}

/// A ledger in memory that a test can make fail.
struct ledger_book {
  std::mutex mutex;
  std::unique_ptr<store::ledger_backend> rows = store::open_memory_ledger();
  std::optional<ec> fault;
  bool silent = false;

  expected<ledger::any_answer> run(ledger::any_transaction t) {
    std::lock_guard lock{mutex};
    if (fault) return fail(*fault, "as the test wants it");
    ledger::changed changed;
    return rows->run({&t, 1}, 0, changed).front();
  }
  std::optional<path_info> find(const nix::store_path& path) {
    auto found = std::get<ledger::path_infos>(run(ledger::read_paths{{path}}).value());
    if (found.rows.empty()) return std::nullopt;
    return found.rows.front();
  }
};

class book_actor {
public:
  using interface = ledger_actor;
  static constexpr const char* name = "book";
  book_actor(rt::self<interface>* self, ledger_book* book) : self_(self), book_(book) {}
  interface::behavior_type make_behavior() {
    return {
        [this](atom::transact_atom, ledger::transaction& t) -> caf::result<ledger::answer> {
          rt::reply<ledger::answer> out{self_};
          if (book_->silent) {
            unanswered_.push_back(out);
            return out;
          }
          auto answer = book_->run(std::move(t.body));
          if (answer)
            out.deliver(ledger::answer{*answer});
          else
            out.deliver(make_error(answer.error()));
          return out;
        },
        [](atom::done_atom) {},
        [](atom::tick_atom) {},
    };
  }

private:
  rt::self<interface>* self_;
  ledger_book* book_;
  std::vector<rt::reply<ledger::answer>> unanswered_;
};

/// A server before a store in a temporary directory.
class cache_site {
public:
  explicit cache_site(const std::function<void(actors::cache_server_state::config&)>& change = [](auto&) {}) {
    fs::create_directories(dir.path / "logs");
    config.blobs = blobs.get();
    config.log_dir = dir.path / "logs";
    config.upload_dir = dir.path / "uploads";
    config.clock = &clock;
    config.port = &port;
    change(config);
    ledger = rt::spawn<book_actor>(system, &book);
    start();
  }
  ~cache_site() {
    stop();
    rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(ledger), caf::exit_reason::user_shutdown);
  }
  void start() {
    server = rt::spawn<actors::cache_server_state>(system, config, ledger);
    caf::scoped_actor me{system};
    me->request(server, 5s, atom::get_v)
        .receive([this](std::string& u) { url = u; }, [](caf::error& e) { FAIL(caf::to_string(e)); });
  }
  /// Returns once the server is gone.
  void stop() {
    if (!server) return;
    caf::scoped_actor me{system};
    me->monitor(server);
    rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(server), caf::exit_reason::user_shutdown);
    server = nullptr;
    me->receive([](caf::down_msg&) {});
  }
  expected<std::string> open(role r = role::submitter) {
    if (!server) return fail(ec::unavailable, "the server is stopped");
    expected<std::string> ticket;
    caf::scoped_actor me{system};
    me->request(server, 5s, atom::open_v, caller{"someone", r})
        .receive([&](std::string& t) { ticket = t; }, [&](caf::error& e) { ticket = tl::unexpected(from_caf(e)); });
    return ticket;
  }
  httplib::Client client() {
    httplib::Client c{url};
    c.set_read_timeout(20, 0);
    return c;
  }
  httplib::Result put(const std::string& path, const std::string& body, std::string ticket = {},
                      httplib::Headers headers = {}) {
    if (ticket.empty()) ticket = open().value();
    headers.emplace("Authorization", "Bearer " + ticket);
    return client().Put("/upload/" + path, headers, body, "application/octet-stream");
  }
  /// Sends bytes as they are; what comes back until the server ends the connection or is silent.
  std::string raw(std::string_view request, std::chrono::milliseconds patience = 2s) {
    int fd = connect();
    REQUIRE(::send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size()));
    auto answer = receive(fd, patience);
    ::close(fd);
    return answer;
  }
  int connect() {
    int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<std::uint16_t>(port.value.load()));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
    return fd;
  }
  /// What comes until it ends with `last`, the connection ends, or nothing comes for so long.
  static std::string receive(int fd, std::chrono::milliseconds patience, std::string_view last = {}) {
    std::string all;
    char piece[4096];
    for (pollfd p{fd, POLLIN, 0}; ::poll(&p, 1, static_cast<int>(patience.count())) > 0;) {
      auto n = ::recv(fd, piece, sizeof piece, 0);
      if (n <= 0) break;
      all.append(piece, static_cast<std::size_t>(n));
      if (!last.empty() && all.ends_with(last)) break;
    }
    return all;
  }

  temporary_directory dir;
  std::unique_ptr<store::directory_blob_store> blobs =
      store::directory_blob_store::open_dir(dir.path / "blobs").value();
  rt::manual_clock clock;
  actors::bound_port port;
  ledger_book book;
  actors::cache_server_state::config config;
  std::string url;

private:
  caf::actor_system_config system_config_;

public:
  caf::actor_system system{system_config_};
  ledger_actor ledger;
  cache_server_actor server;
};

/// A NAR of one regular file.
inline std::string nar_of(std::string_view contents, bool executable = false) {
  std::string nar;
  nix::nar_writer w{[&nar](std::string_view bytes) { nar += bytes; }};
  w.regular(executable, contents.size());
  w.contents(contents);
  w.finish();
  return nar;
}

inline std::string export_of(const nix::store_path& path, std::string_view nar,
                             const std::set<nix::store_path>& references = {}) {
  std::string out;
  nix::export_writer w{[&out](std::string_view bytes) { out += bytes; }};
  w.begin_path();
  w.nar(nar);
  w.end_path({path, references, std::nullopt});
  w.finish();
  return out;
}

/// A path and its export, as `builtins.path` makes them.
struct sample {
  nix::store_path path;
  std::string exported;
};
inline sample source_sample(std::string_view name, std::string_view contents,
                            const std::set<nix::store_path>& references = {}) {
  auto nar = nar_of(contents);
  auto path = nix::source_path(name, nix::sha256(nar), references).value();
  return {path, export_of(path, nar, references)};
}

/// Bytes that zstd cannot make smaller.
inline std::string noise(std::size_t size) {
  std::string bytes(size, '\0');
  rt::random_bytes({reinterpret_cast<unsigned char*>(bytes.data()), bytes.size()});
  return bytes;
}

} // namespace coppice::test
