#include "tests/sim/client.hpp"

namespace coppice::sim {

using namespace std::chrono_literals;

namespace {

/// An answer that takes longer is not waited for.
constexpr nanoseconds patience = 15s;

} // namespace

client::client(farm& f, const workload::request& wanted, std::string name, std::uint64_t seed)
    : farm_(f), wanted_(wanted), name_(std::move(name)), dice_(seed) {}

void client::begin(nanoseconds after) {
  farm_.time.after(after, [this] { step(); });
}

void client::cancel(nanoseconds after) {
  farm_.time.after(after, [this] {
    if (over()) return;
    farm_.time.tell("{} wants its request cancelled", name_);
    cancels_ = cancelled_ = true;
  });
}

void client::forget() {
  result_.reset();
  stage_ = stage::submit;
  begin(0ns);
}

void client::step() {
  if (over()) return;
  auto& hub = farm_.hub();
  const bool same = hub.process && hub.born == hub_life_;
  if (open_ && same && hub.runs() && open_()) open_ = nullptr;
  if (open_ && (!same || farm_.time.now() - asked_ > patience)) open_ = nullptr;
  if (over()) return;
  if (!open_ && hub.runs()) ask();
  farm_.time.after(dice_.between(50ms, 400ms), [this] { step(); });
}

template <class Handle, class Then, class... Ts>
void client::ask(const Handle& to, Then then, Ts... xs) {
  const auto lost = farm_.net.now.loss;
  asked_ = farm_.time.now();
  hub_life_ = farm_.hub().born;
  if (dice_.chance(lost)) return void(open_ = [] { return false; });
  farm_.wake(farm_.hub());
  auto q = farm_.hub().process->world().begin(to, xs...);
  if (dice_.chance(farm_.net.now.repeat)) (void)farm_.hub().process->world().begin(to, xs...); // heard twice
  open_ = [this, q, then, unheard = dice_.chance(lost)] {
    if (unheard || !q.answered()) return false;
    (this->*then)(q.get());
    return true;
  };
}

void client::ask() {
  auto& p = *farm_.hub().process;
  const caller me{name_, role::submitter};
  if (cancels_ && stage_ == stage::poll) stage_ = stage::cancel;
  switch (stage_) {
  case stage::locate:
    return ask(p.ledger(), &client::on_located, atom::transact_v,
               ledger::transaction{ledger::stat_blob{wanted_.closure}});
  case stage::enter:
    if (!farm_.blobs.put(store::closure_key(wanted_.closure, gen_), wanted_.packed)) return;
    return ask(p.ledger(), &client::on_entered, atom::transact_v,
               ledger::transaction{ledger::register_blob{wanted_.closure, gen_, wanted_.packed.size()}});
  case stage::submit: {
    submit_request s;
    s.id = wanted_.id;
    for (auto& drv : wanted_.drvs)
      s.body.roots.push_back({drv, {}});
    s.body.closure = wanted_.closure;
    s.body.keep_going = true;
    return ask(p.gateway(), &client::on_submitted, atom::submit_v, me, s);
  }
  case stage::poll:
    return ask(p.gateway(), &client::on_polled, atom::poll_v, me, poll_request{wanted_.id, 0, poll_wait_ms_max});
  case stage::cancel:
    return ask(p.gateway(), &client::on_cancelled, atom::cancel_v, me, cancel_request{wanted_.id, false});
  }
}

void client::on_located(const expected<ledger::answer>& a) {
  if (!a) return;
  const auto& blob = std::get<ledger::blob_state>(a->body);
  gen_ = blob.gen;
  stage_ = blob.present ? stage::submit : stage::enter;
}

void client::on_entered(const expected<ledger::answer>& a) {
  if (a) stage_ = stage::submit;
  if (!a && a.error().code == ec::upload_again) stage_ = stage::locate;
}

void client::on_submitted(const expected<accepted>& a) {
  if (a) stage_ = stage::poll;
  if (!a && a.error().code == ec::missing) stage_ = stage::locate; // it was collected meanwhile
}

void client::on_cancelled(const expected<accepted>& a) {
  if (!a) return;
  cancels_ = false;
  stage_ = stage::poll;
}

void client::on_polled(const expected<request_progress>& p) {
  if (!p && p.error().code == ec::not_found)
    farm_.watcher.broken("INV-6", "the request of " + name_ + " was accepted and is not known");
  if (!p || !p->result) return;
  result_ = p->result;
  farm_.watcher.told(*result_, wanted_.id);
  farm_.time.tell("{} is told: {}", name_, to_string(result_->state));
}

} // namespace coppice::sim
