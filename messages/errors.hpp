#pragma once

#include <caf/atom.hpp>
#include <caf/error.hpp>
#include <tl/expected.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace coppice {

/// Every way in which an operation can fail, in one list. Numbers are on the wire: never reused.
enum class ec : std::uint8_t {
  none = 0, ///< no error; never sent

  // 1..19: what callers of actors see (runtime)
  crashed = 1,           ///< the actor threw; its supervisor decides what follows
  restarted = 2,         ///< the actor died while it handled the request, which may have taken effect
  unavailable = 3,       ///< the request never started: nobody serves it now; safe to repeat
  overloaded = 4,        ///< a bound was reached; repeat later
  deadline = 5,          ///< no answer in time; the request may have taken effect
  too_many_restarts = 6, ///< a supervisor gave up
  shutdown = 7,          ///< the process is stopping
  no_such_target = 8,    ///< no actor, method or record of that name
  peer_down = 9,         ///< the connection to the other machine is lost
  congested = 10,        ///< the outbox to that peer is full; repeat later

  // 20..39: what is wrong with what was said
  bad_message = 20,   ///< bytes do not decode or do not pass check(); INV-14
  forbidden = 21,     ///< this key's role may not say that; INV-15
  unsupported = 22,   ///< version, method or feature this build does not know
  invalid = 23,       ///< well-formed, but wrong in itself: a cycle, a hash that does not match, a bad name
  not_found = 24,     ///< the thing asked about does not exist
  conflict = 25,      ///< the same id was used for something else
  limit_exceeded = 26, ///< larger or more than a configured bound allows

  // 40..59: ledger (reliability.md 4.8)
  stale = 40,        ///< a token, epoch or session that is not current; INV-9
  not_owner = 41,    ///< the request is owned by another coordinator
  session_over = 42, ///< the node's session ended; open a new one
  upload_again = 43, ///< a blob of this commit is not present in its current generation
  ledger_regressed = 44, ///< a token from the future: the ledger was restored from a backup; INV-7

  // 60..79: storage and the machine
  io = 60,           ///< the operating system refused
  storage_full = 61, ///< no space left
  corrupt = 62,      ///< bytes do not match their hash or format; INV-16
  missing = 63,      ///< a store object that should be there is not
  locked = 64,       ///< another process holds the state directory

  last_ = locked
};

/// The name of an error as scripts see it, e.g. "storage_full".
std::string_view to_string(ec code);

/// An operating error: what kind, and what was tried on what.
struct error {
  ec code = ec::none;
  std::string what;
  friend bool operator==(const error&, const error&) = default;
};

template <class T>
using expected = tl::expected<T, error>;

/// `return fail(ec::io, "cannot open " + path)` from a function that returns expected<T>.
inline tl::unexpected<error> fail(ec code, std::string what) { return tl::unexpected(error{code, std::move(what)}); }

/// The same error in CAF's currency (category "coppice"), and back; foreign CAF errors become `crashed` or, for
/// CAF's own "receiver is down", `unavailable`.
caf::error make_error(ec code, std::string what = {});
caf::error make_error(const error& e);
error from_caf(const caf::error& e);

/// True if `e` is this error of ours.
bool is(const caf::error& e, ec code);

/// "storage_full: cannot write …", for logs and terminals.
std::string to_string(const error& e);

inline constexpr caf::atom_value error_category = caf::atom("coppice");

} // namespace coppice
