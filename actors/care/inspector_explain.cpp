#include "actors/ask.hpp"
#include "actors/care/inspector.hpp"

#include <algorithm>

/// Why a derivation is not built yet: what the GRAPHs, the LEDGER and the ALLOCATOR know of it, put together.
namespace coppice::actors {
namespace {

/// What a step is doing says more the later it is in this list.
int telling(step_life l) {
  switch (l) {
  case step_life::unknown: return 0;
  case step_life::asked: return 1;
  case step_life::not_attempted: return 2;
  case step_life::wanted: return 3;
  case step_life::failed: return 4;
  case step_life::waiting: return 5;
  case step_life::ready: return 6;
  case step_life::acquiring: return 7;
  case step_life::delayed: return 8;
  case step_life::queued: return 9;
  case step_life::building: return 10;
  case step_life::done: return 11;
  }
  return 0;
}

} // namespace

caf::result<explanation> inspector_state::explain(const explain_query& what) {
  auto q = std::make_shared<inquiry>(inquiry{what, {}, 1, rt::reply<explanation>{self_}});
  const auto wall = config_.clock->wall_now().time_since_epoch();
  q->found.at_ms = std::chrono::duration_cast<std::chrono::milliseconds>(wall).count();
  auto answered = [this, q] {
    if (--q->graphs_open == 0) on_views(q);
  };
  for (auto& actor : config_.directory->describe()) {
    if (!actor.path.starts_with(config_.graphs_path + "/") || q->graphs_open > config_.graphs_asked_max) continue;
    auto graph = config_.directory->find(actor.path);
    if (!graph) continue; // it has just ended
    ++q->graphs_open;
    self_->call(caf::actor_cast<graph_actor>(graph), atom::explain_v, what)
        .then(
            [q, answered](step_answer& a) {
              if (a.view) q->found.requests.push_back(std::move(*a.view));
              answered();
            },
            [answered](caf::error&) {
              // ignored: a graph that ends says nothing, and the ledger knows the rest
              answered();
            });
  }
  auto out = q->out;
  answered();
  return out;
}

void inspector_state::on_views(const shared_inquiry& q) {
  auto& views = q->found.requests;
  std::stable_sort(views.begin(), views.end(), [](auto& a, auto& b) { return telling(a.life) > telling(b.life); });
  q->found.requests_count = views.size();
  if (views.size() > explained_rows_max) views.erase(views.begin() + explained_rows_max, views.end());
  if (!views.empty())
    q->found.drv = views.front().drv;
  else if (q->what.path.is_derivation())
    q->found.drv = q->what.path;
  look_up_path(q);
}

template <class Answer, class Tx, class Then>
void inspector_state::read(const shared_inquiry& q, Tx tx, Then then) {
  transact<Answer>(self_, peers_.ledger, std::move(tx), std::move(then),
                   [q](const error& e) { q->out.deliver(make_error(e)); });
}

void inspector_state::look_up_path(const shared_inquiry& q) {
  read<ledger::path_infos>(q, ledger::read_paths{{q->what.path}}, [this, q](ledger::path_infos& known) {
    q->found.stored = std::move(known.rows);
    if (!q->found.drv && !q->found.stored.empty()) q->found.drv = q->found.stored.front().deriver;
    if (!q->found.drv) return q->out.deliver(q->found);
    look_up_attempts(q);
  });
}

void inspector_state::look_up_attempts(const shared_inquiry& q) {
  ledger::read_attempts r;
  r.drv = q->found.drv;
  r.limit = explained_rows_max;
  read<ledger::attempt_rows>(q, std::move(r), [this, q](ledger::attempt_rows& rows) {
    q->found.attempts = std::move(rows.rows);
    look_up_failures(q);
  });
}

void inspector_state::look_up_failures(const shared_inquiry& q) {
  read<ledger::failure_rows>(q, ledger::read_failures{q->found.drv, explained_rows_max},
                             [this, q](ledger::failure_rows& rows) {
                               auto& f = q->found;
                               f.failures = std::move(rows.rows);
                               if (!f.requests.empty()) return look_up_lock(q, f.requests.front().key);
                               if (!f.attempts.empty()) return look_up_lock(q, f.attempts.front().key);
                               if (!f.failures.empty()) return look_up_lock(q, f.failures.front().key);
                               q->out.deliver(f); // nobody has heard of it
                             });
}

void inspector_state::look_up_lock(const shared_inquiry& q, const inhash& key) {
  if (key.empty()) return q->out.deliver(q->found); // its request is being planned
  read<ledger::lock_states>(q, ledger::read_locks{{key}}, [this, q](ledger::lock_states& rows) {
    if (!rows.rows.empty()) q->found.lock = std::move(rows.rows.front());
    look_up_place(q);
  });
}

void inspector_state::look_up_place(const shared_inquiry& q) {
  auto& f = q->found;
  const bool over = f.requests.empty() || f.requests.front().life >= step_life::building;
  if (over || f.requests.front().upstream) return q->out.deliver(f);
  auto& v = f.requests.front();
  self_->call(peers_.allocator, atom::explain_v, placing_query{v.key, v.system, v.features, v.io_bound})
      .then(
          [q](placing& p) {
            q->found.place = std::move(p);
            q->out.deliver(q->found);
          },
          [q](caf::error& e) { q->out.deliver(std::move(e)); });
}

} // namespace coppice::actors
