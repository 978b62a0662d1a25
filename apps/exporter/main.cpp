#include "apps/common/farm.hpp"
#include "apps/exporter/metrics.hpp"
#include "runtime/clock.hpp"

#include <fmt/format.h>
#include <httplib.h>

#include <chrono>
#include <iostream>
#include <thread>

namespace {

using namespace coppice;
using namespace coppice::app;

/// How long the node may keep an answer back for news: the age of the gauges.
constexpr std::uint32_t follow_wait_ms = 2'000;
/// Between tries to find a node that is not there.
constexpr std::chrono::seconds find_pause{1};
/// Scrapes at once; further ones wait.
constexpr std::size_t http_threads = 2;

std::int64_t wall_ms() {
  auto now = rt::real_clock{}.wall_now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

/// Asks for events until the node cannot be reached or refuses; what it counted stays.
error follow(farm& f, node_metrics& metrics, follow_events& query) {
  while (true) {
    auto page = f.ask<event_page>("observatory", "events", query);
    if (!page) return page.error();
    // What was before this program began was counted by the one before it, if at all: counting it again would be wrong.
    if (query.stream == 0) page->events.clear();
    metrics.take(*page, wall_ms());
    query.stream = page->stream;
    query.after = page->next;
    query.wait_ms = follow_wait_ms;
  }
}

/// Never comes back unless the key is refused or the configuration is wrong.
error follow_for_ever(const farm_options& options, node_metrics& metrics) {
  const std::atomic<bool> never{false};
  auto away = [&](const std::string&) { metrics.lost_contact(); };
  follow_events query;
  query.after = events_from_now;
  while (true) {
    auto found = farm::find(options, never, away);
    auto e = found ? follow(*found, metrics, query) : found.error();
    metrics.lost_contact();
    if (e.code != ec::unavailable) return e;
    std::this_thread::sleep_for(find_pause);
  }
}

struct address {
  std::string host;
  int port = 0;
};

expected<address> parse_address(const std::string& text) {
  auto colon = text.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon + 1 < text.size() && text.size() - colon <= 6 &&
      text.find_first_not_of("0123456789", colon + 1) == std::string::npos)
    port = std::stoi(text.substr(colon + 1));
  if (port < 0 || port > 65'535) return fail(ec::invalid, "--listen " + text + " is not HOST:PORT");
  return address{text.substr(0, colon), port};
}

/// Binds the server and gives the port.
expected<int> bind(httplib::Server& server, const address& where) {
  auto port = where.port == 0                                       ? server.bind_to_any_port(where.host.c_str())
              : server.bind_to_port(where.host.c_str(), where.port) ? where.port
                                                                    : -1;
  if (port < 0) return fail(ec::io, fmt::format("cannot listen on {}:{}", where.host, where.port));
  return port;
}

int run(int argc, char** argv) {
  CLI::App app("coppice-exporter: serve a node's metrics to Prometheus, at /metrics.\n"
               "It follows the node's event stream and counts: a scrape never asks the node. A key of role observer "
               "is enough.");
  farm_options options;
  std::string listen = "127.0.0.1:9464";
  add_farm_options(app, options);
  app.add_option("--listen", listen, "where to serve HTTP; port 0: any, told on standard output")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.footer("Example:\n  coppice-exporter --node tcp://oak:5000 --key watcher.toml --listen 0.0.0.0:9464");
  if (const int done = parse_command_line(app, argc, argv); done >= 0) return done;
  auto where = parse_address(listen);
  if (!where) return complain("coppice-exporter", where.error());

  node_metrics metrics;
  httplib::Server server;
  server.new_task_queue = [] { return new httplib::ThreadPool(http_threads); };
  server.Get("/metrics", [&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(metrics.text(), "text/plain; version=0.0.4; charset=utf-8");
  });
  auto port = bind(server, *where);
  if (!port) return complain("coppice-exporter", port.error());
  std::thread http([&] { server.listen_after_bind(); });
  std::cout << fmt::format("{}http://{}:{}/metrics{}", options.json ? "{\"url\":\"" : "", where->host, *port,
                           options.json ? "\"}" : "")
            << std::endl;
  auto why = follow_for_ever(options, metrics);
  server.stop();
  http.join();
  return complain("coppice-exporter", why);
}

} // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "coppice-exporter: " << e.what() << std::endl;
    return coppice::app::exit_failed;
  }
}
