#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

namespace coppice::actors {

/// Asks the ledger: `transact(self, ledger, ledger::adopt{id, session}, [](ledger::owned& x) {…}, [](error e) {…})`.
/// An answer of another type than expected counts as an error; exactly one of the two lambdas is called.
template <class Answer, class Self, class Tx, class Done, class Failed>
void transact(Self* self, const ledger_actor& to, Tx tx, Done done, Failed failed) {
  self->call(to, atom::transact_v, ledger::transaction{std::move(tx)})
    .then(
      [done, failed](ledger::answer& a) mutable {
        if (auto* x = std::get_if<Answer>(&a.body))
          done(*x);
        else
          failed(error{ec::bad_message, "the ledger answered with another type than asked for"});
      },
      [failed](caf::error& e) mutable { failed(from_caf(e)); });
}

} // namespace coppice::actors
