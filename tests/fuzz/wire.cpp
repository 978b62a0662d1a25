#include "messages/wire.hpp"

#include "messages/check.hpp"
#include "messages/client.hpp"
#include "messages/ledger.hpp"
#include "tests/fuzz/fuzz.hpp"

#include <array>

using namespace coppice;
using fuzz::must;

namespace {

/// As tight as those for messages of other machines.
constexpr wire::limits bounds{.depth_max = 16, .elements_max = 1 << 16, .string_bytes_max = 1 << 20};

template <class Message>
void read(std::string_view bytes) {
  const auto message = wire::decode<Message>(bytes, bounds);
  if (!message) {
    must(!message.error().what.empty(), "what is refused is refused with a reason");
    return;
  }
  const auto encoded = wire::encode(*message);
  const auto again = wire::decode<Message>(encoded);
  must(again.has_value(), "what is encoded can be decoded");
  must(*again == *message, "and means the same");
  must(wire::encode(*again) == encoded, "and is encoded as it was");
  if constexpr (requires { check(*message); })
    must(check(*message).has_value() == check(*again).has_value(), "and is as valid");
}

/// The first byte of the input says which one it is; new ones go to the end, so that corpora stay of use.
constexpr std::array kinds{&read<submit_request>,
                           &read<find_missing>,
                           &read<poll_request>,
                           &read<get_requests>,
                           &read<cancel_request>,
                           &read<find_log>,
                           &read<kill_actor>,
                           &read<ledger::read_attempts>,
                           &read<ledger::read_durations>,
                           &read<ledger::held_locks>,
                           &read<request_progress>,
                           &read<missing>,
                           &read<log_place>,
                           &read<actor_tree>,
                           &read<request_summaries>,
                           &read<node_info>,
                           &read<ledger::transaction>,
                           &read<ledger::answer>,
                           &read<step_progress>,
                           &read<job>,
                           &read<ledger::changed>,
                           &read<follow_events>,
                           &read<event_page>,
                           &read<get_queue>,
                           &read<drain_node>,
                           &read<drop_partial>,
                           &read<explanation>,
                           &read<ledger::read_failures>,
                           &read<get_partials>};

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto bytes = fuzz::text_of(data, size);
  kinds[fuzz::first_of(bytes) % kinds.size()](bytes);
  return 0;
}
