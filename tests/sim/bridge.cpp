#include "tests/sim/bridge.hpp"

#include "tests/sim/names.hpp"
#include "tests/support/scratch_dir.hpp"

#include <zmq.h>

#include <algorithm>
#include <array>

namespace coppice::sim {

/// Everybody's allow-list: every machine there can be, under a key of its own.
const rt::allow_list& bridge::friends(std::size_t machines) {
  static std::map<std::size_t, std::unique_ptr<rt::allow_list>> made;
  auto& list = made[machines];
  if (list) return *list;
  const test::scratch_dir scratch;
  rt::authorized_keys keys;
  for (std::size_t i = 0; i < machines; ++i) {
    const auto name = machine_name(i);
    keys.key.push_back({name, role::node, key_of(name)});
  }
  const auto file = scratch.path / "authorized.toml";
  test::need(rt::write_authorized(file, keys));
  list = std::make_unique<rt::allow_list>(file);
  test::need(list->refresh());
  return *list;
}

const std::string& bridge::key_of(const std::string& machine) {
  static std::map<std::string, std::string> keys;
  auto& key = keys[machine];
  if (!key.empty()) return key;
  std::array<std::uint8_t, 32> bytes{}; // sockets are simulated: nobody looks whether it is a point of the curve
  std::copy_n(machine.begin(), std::min(machine.size(), bytes.size()), bytes.begin());
  key.resize(rt::key_chars + 1);
  zmq_z85_encode(key.data(), bytes.data(), bytes.size());
  key.resize(rt::key_chars);
  return key;
}

bridge::bridge(wires& all, caf::actor_system& system, std::shared_ptr<rt::mesh> mesh, options o)
    : wires_(all), options_(std::move(o)), number_(++all.last_bridge_), pause_(options_.redial_first) {
  rt::session_options s;
  s.peers.node = options_.me;
  s.peers.born = options_.born;
  s.relay_to = options_.hub;
  sessions_.emplace(
      s, friends(all.machines_), std::make_shared<rt::registry>(), rt::reply_port::make(system, out_),
      std::make_shared<rt::bridge_counters>(),
      [this](const std::string& route, const rt::frame& f) { return send(route, f); }, std::move(mesh), out_);
  wires_.living_.emplace(number_, this);
  if (options_.hub.empty()) wires_.listening_[options_.me.value] = this;
}

bridge::~bridge() {
  wires_.living_.erase(number_);
  std::erase_if(wires_.listening_, [this](auto& l) { return l.second == this; });
  std::erase_if(wires_.sockets_, [this](auto& s) { return s.second == number_; });
}

bool bridge::pump(rt::instant now) {
  bool busy = false;
  for (; !inbox_.empty(); busy = true) {
    const auto w = std::move(inbox_.front());
    inbox_.pop_front();
    if (!w.dialled)
      sessions_->heard(w.route, w.key, {w.head, w.body}, now);
    else if (w.route == socket_)
      sessions_->heard_dialled(options_.hub.value, {w.head, w.body}, now);
  }
  auto all = out_->take();
  busy |= !all.empty();
  sessions_->deliver(std::move(all));
  return busy;
}

void bridge::tick(rt::instant now) {
  sessions_->tick(now);
  if (!options_.hub.empty()) dial(now);
}

// bridge_loop's `dialled`, over sockets that are simulated.
void bridge::dial(rt::instant now) {
  const auto& hub = options_.hub.value;
  const bool open = !socket_.empty();
  if (open && greeted_ && sessions_->welcomed(hub)) {
    pause_ = options_.redial_first;
    began_ = now;
  } else if (open && greeted_ && !sessions_->has(hub)) {
    hang_up(now);
  } else if (open && now - began_ > options_.dial_patience) {
    hang_up(now);
  } else if (open && !greeted_) {
    greeted_ = sessions_->dial(hub, options_.hub, now);
  } else if (!open && now >= next_) {
    socket_ = options_.me.value + "#" + std::to_string(++wires_.last_route_);
    wires_.sockets_[socket_] = number_;
    began_ = now;
    greeted_ = false;
  }
}

void bridge::arrive(const words& w) {
  inbox_.push_back(w);
  if (options_.on_words) options_.on_words();
}

void bridge::hang_up(rt::instant now) {
  wires_.sockets_.erase(socket_);
  socket_.clear();
  next_ = now + pause_;
  pause_ = std::min(2 * pause_, options_.redial_longest);
}

bool bridge::send(const std::string& route, const rt::frame& f) {
  auto head = rt::encode_head(f.head);
  const auto& me = options_.me.value;
  auto& all = wires_;
  if (!options_.hub.empty()) { // a member knows its hub alone
    if (socket_.empty()) return false;
    all.net_.send(me, options_.hub.value,
                  [&all, to = options_.hub.value, w = words{socket_, key_of(me), std::move(head), f.body, false}] {
                    if (auto there = all.listening_.find(to); there != all.listening_.end()) there->second->arrive(w);
                  });
    return true;
  }
  auto whose = all.sockets_.find(route);
  const auto member = route.substr(0, route.find('#'));
  // whose process is gone is told by its machine, if that can be heard
  if (whose == all.sockets_.end()) return !all.net_.carries(member, me);
  all.net_.send(me, member, [&all, to = whose->second, w = words{route, {}, std::move(head), f.body, true}] {
    if (auto there = all.living_.find(to); there != all.living_.end()) there->second->arrive(w);
  });
  return true;
}

} // namespace coppice::sim
