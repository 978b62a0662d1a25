#include "actors/deliver/cache_server.hpp"

#include "actors/deliver/cache_pages.hpp"
#include "actors/deliver/held_pages.hpp"
#include "actors/deliver/http_server.hpp"
#include "actors/deliver/node_blobs.hpp"
#include "actors/deliver/remote_logs.hpp"
#include "actors/deliver/tickets.hpp"
#include "actors/deliver/uploads.hpp"
#include "actors/settings.hpp"
#include "runtime/log.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <tuple>

namespace coppice::actors {

namespace {

/// How often a thread that waits for an answer looks whether the server stops.
constexpr auto look_interval = std::chrono::milliseconds{20};

http_limits to_http(const cache_server_state::limits& l) {
  return {.connections_max = l.connections_max,
          .idle_max = l.idle_max,
          .stall_max = l.stall_max,
          .bytes_per_second_min = l.bytes_per_second_min};
}

uploads::config to_uploads(const cache_server_state::config& c, const ticket_box& tickets) {
  return {.blobs = c.blobs,
          .dir = c.upload_dir,
          .clock = c.clock,
          .tickets = &tickets,
          .key = c.key,
          .source = {c.limits.upload_bytes_max, c.compression_level, c.store_dir},
          .closure_bytes_max = c.limits.closure_bytes_max,
          .closure_unpacked_max = c.limits.closure_unpacked_max,
          .uploads_max = c.limits.uploads_max};
}

node_blobs::config to_blobs(const cache_server_state::config& c, const cache_pages& pages, const ticket_box& tickets) {
  return {c.blobs, &pages, c.clock, &tickets, c.limits.blob_bytes_max, c.limits.node_puts_max};
}

/// Where a thread waits for an answer; outlives the wait if the answer is late.
template <class Answer>
struct pending_answer {
  std::mutex mutex;
  std::condition_variable arrived;
  std::optional<expected<Answer>> answer;
  void set(expected<Answer> a) {
    std::lock_guard lock{mutex};
    answer = std::move(a);
    arrived.notify_all();
  }
};

/// Asks once, and ends; a stable reference answers in finite time. A timeout of CAF's would stay in the clock until it
/// is due.
template <class Answer, class Handle, class... Ts>
class question final : public caf::event_based_actor {
public:
  question(caf::actor_config& cfg, Handle to, std::tuple<Ts...> words, std::shared_ptr<pending_answer<Answer>> pending)
      : caf::event_based_actor(cfg), to_(std::move(to)), words_(std::move(words)), pending_(std::move(pending)) {}
  caf::behavior make_behavior() override {
    std::apply(
        [this](auto&... words) {
          request(to_, caf::infinite, std::move(words)...)
              .then([p = pending_](Answer& a) { p->set(std::move(a)); },
                    [p = pending_](caf::error& e) { p->set(tl::unexpected(from_caf(e))); });
        },
        words_);
    return {};
  }

private:
  const Handle to_;
  std::tuple<Ts...> words_;
  const std::shared_ptr<pending_answer<Answer>> pending_;
};

} // namespace

/// What the HTTP threads share.
class cache_server_state::site {
public:
  site(caf::actor_system& system, config c, ledger_actor ledger)
      : config_(std::move(c))
      , system_(system)
      , ledger_(std::move(ledger))
      , tickets_(config_.limits.ticket_ttl, config_.limits.tickets_max)
      , logs_([this](const inhash& key, fence token) { return find_log(key, token); }, config_.limits.logs_passed_on_max,
              stopping_)
      , pages_(*config_.blobs, config_.log_dir, config_.store_dir, config_.urls, config_.urls_valid, log_elsewhere())
      , held_(config_.local, config_.limits.held_sends_max)
      , uploads_(to_uploads(config_, tickets_), [this](ledger::any_transaction t) { return ask_ledger(std::move(t)); })
      , blobs_(to_blobs(config_, pages_, tickets_))
      , http_(config_.listen, config_.port ? config_.port->value.load() : 0, routes(), to_http(config_.limits)) {
    if (config_.port) config_.port->value = http_.port();
  }
  ~site() { stopping_ = true; } // before http_ waits for its threads
  std::string issue(const caller& to) { return tickets_.issue(to, config_.clock->now()); }
  std::string url() const { return config_.url.empty() ? http_.url() : config_.url; }

private:
  http_routes routes() {
    using request = const httplib::Request&;
    using response = httplib::Response&;
    const auto of_nodes = &node_blobs::serves;
    return {
        .get =
            [=, this](request q, response s) {
              if (held_pages::serves(q)) return held_.get(q, s);
              of_nodes(q) ? blobs_.get(q, s) : pages_.get(q, s);
            },
        .admits = [=, this](request q,
                            response s) { return of_nodes(q) ? blobs_.admits(q, s) : uploads_.admits(q, s); },
        .put = [=, this](request q, response s,
                         const body_reader& body) { of_nodes(q) ? blobs_.put(q, s, body) : uploads_.put(q, s, body); },
        .remove = [this](request q, response s) { blobs_.remove(q, s); }};
  }
  cache_pages::log_elsewhere log_elsewhere() {
    if (!config_.cache_of) return {};
    return [this](auto& q, auto& s, const inhash& key, fence token) { logs_.get(q, s, key, token); };
  }
  template <class Answer, class Handle, class... Ts>
  expected<Answer> ask(const std::string& whom, const Handle& to, Ts... words);
  expected<ledger::any_answer> ask_ledger(ledger::any_transaction t);
  expected<std::string> find_log(const inhash& key, fence token);

  const config config_;
  caf::actor_system& system_;
  const ledger_actor ledger_;
  std::atomic<bool> stopping_{false};
  ticket_box tickets_;
  remote_logs logs_;
  cache_pages pages_;
  held_pages held_;
  uploads uploads_;
  node_blobs blobs_;
  http_server http_; // last: its threads use all the others
};

// Not by a scoped_actor: nobody can cut its wait short, and it would hold up the end of the server.
template <class Answer, class Handle, class... Ts>
expected<Answer> cache_server_state::site::ask(const std::string& whom, const Handle& to, Ts... words) {
  auto pending = std::make_shared<pending_answer<Answer>>();
  system_.spawn<question<Answer, Handle, Ts...>, caf::hidden>(to, std::tuple<Ts...>{std::move(words)...}, pending);
  std::unique_lock lock{pending->mutex};
  for (auto until = std::chrono::steady_clock::now() + config_.limits.answer_timeout; !pending->answer;) {
    if (stopping_) return fail(ec::shutdown, "the server is stopping");
    if (std::chrono::steady_clock::now() > until) return fail(ec::deadline, whom + " did not answer in time");
    pending->arrived.wait_for(lock, look_interval);
  }
  return std::move(*pending->answer);
}

expected<ledger::any_answer> cache_server_state::site::ask_ledger(ledger::any_transaction t) {
  auto answer = ask<ledger::answer>("the ledger", ledger_, atom::transact_v, ledger::transaction{std::move(t)});
  if (!answer) return tl::unexpected(answer.error());
  return std::move(answer->body);
}

// Whether the attempt is over says nothing: a log may reach the store later.
expected<std::string> cache_server_state::site::find_log(const inhash& key, fence token) {
  ledger::read_attempts read;
  read.key = key;
  auto answer = ask_ledger(read);
  if (!answer) return tl::unexpected(answer.error());
  const auto* attempts = std::get_if<ledger::attempt_rows>(&*answer);
  if (!attempts) return fail(ec::bad_message, "the ledger answered something else");
  auto row = std::find_if(attempts->rows.begin(), attempts->rows.end(), [&](auto& a) { return a.token == token; });
  if (row == attempts->rows.end() || row->node == config_.node) return fail(ec::not_found, "there is no such thing here");
  const auto& node = row->node.value;
  auto there = ask<upload_ticket>(node, config_.cache_of(row->node), atom::open_v, get_ticket{});
  if (!there) return fail(there.error().code, "the log is on " + node + ": " + there.error().what);
  if (!is_for_others(there->url))
    return fail(ec::not_found, "the log is on " + node + ", which others do not reach over HTTP, and comes to the store "
                               "when the build is over");
  return std::move(there->url);
}

cache_server_state::cache_server_state(rt::self<interface>* self, config c, ledger_actor ledger)
    : self_(self), site_(std::make_unique<site>(self->system(), std::move(c), std::move(ledger))) {
  url_ = site_->url();
  rt::log::info("CACHE_SERVER", "listening url={}", url_);
  self_->doing("serving " + url_);
}

cache_server_state::~cache_server_state() = default;

cache_server_state::interface::behavior_type cache_server_state::make_behavior() {
  return {
      [this](atom::get_atom) { return url_; },
      [this](atom::open_atom, const caller& who) -> caf::result<std::string> {
        if (who.role < role::submitter) // INV-15
          return make_error(ec::forbidden, "the key " + who.name + " may look, not upload");
        return site_->issue(who);
      },
      [this](atom::open_atom, const get_ticket&) { return upload_ticket{url_, site_->issue({"a node", role::node})}; },
  };
}

} // namespace coppice::actors
