#include "messages/check_farm.hpp"

#include "messages/check.hpp"

#include <fmt/core.h>

namespace coppice {

namespace {

template <class... Ts>
tl::unexpected<error> bad(fmt::format_string<Ts...> f, Ts&&... xs) {
  return fail(ec::bad_message, fmt::format(f, std::forward<Ts>(xs)...));
}

expected<void> check_node(const node_id& node, std::string_view field) {
  if (node.empty() || node.value.size() > node_name_bytes_max || node.value.find('/') != std::string::npos)
    return bad("{}: a node's name has 1 to {} bytes and no '/'", field, node_name_bytes_max);
  return {};
}

/// The ledger's rules refuse what is wrong in itself; here is what they take for granted.
struct transaction_check {
  template <class T>
  expected<void> operator()(const T& t) const {
    if constexpr (requires { t.limit; } && !std::is_same_v<T, ledger::held_locks>) { // a node asks for all that it holds
      if (t.limit > rows_max) return bad("{}: limit {}, at most {} are allowed", T::struct_name, t.limit, rows_max);
    }
    if constexpr (requires { t.key.empty(); } && !std::is_same_v<T, ledger::read_attempts>) {
      if (t.key.empty()) return bad("{}: key is empty", T::struct_name);
    }
    if constexpr (requires { t.url; }) {
      if (t.url.size() > url_bytes_max) return bad("{}: url has more than {} bytes", T::struct_name, url_bytes_max);
    }
    return {};
  }
};

} // namespace

expected<void> check(const ledger::transaction& m) { return std::visit(transaction_check{}, m.body); }
expected<void> check(const ledger::answer&) { return {}; }
expected<void> check(const ledger::changed&) { return {}; }
expected<void> check(const ledger::done&) { return {}; }

expected<void> check(const watch_ledger& m) {
  if (m.session.empty()) return bad("watch_ledger: session is empty");
  return {};
}

expected<void> check(const offer& m) {
  if (auto ok = check_node(m.node, "offer: node"); !ok) return ok;
  for (auto* names : {&m.systems, &m.features, &m.mandatory_features})
    if (names->size() > names_per_offer_max)
      return bad("offer: {} systems or features, at most {} are allowed", names->size(), names_per_offer_max);
  if (m.slots > slots_max || m.io_slots > slots_max || m.slots_free > m.slots || m.io_slots_free > m.io_slots)
    return bad("offer: {} of {} slots and {} of {} I/O slots free", m.slots_free, m.slots, m.io_slots_free, m.io_slots);
  if (m.share.all.cores > cores_max || m.share.left.cores > m.share.all.cores)
    return bad("offer: {} of {} cores left", m.share.left.cores, m.share.all.cores);
  if (m.share.special.size() > names_per_offer_max)
    return bad("offer: reserves for {} features, at most {} are allowed", m.share.special.size(), names_per_offer_max);
  return {};
}

expected<void> check(const job& m) {
  if (m.key.empty()) return bad("job: key is empty");
  if (!m.drv.is_derivation()) return bad("job: {} is not a derivation", m.drv.base_name());
  if (m.heavy.size() > heavy_inputs_max)
    return bad("job: {} heavy inputs, at most {} are allowed", m.heavy.size(), heavy_inputs_max);
  return {};
}

expected<void> check(const partial_outputs& m) {
  if (m.rows.size() > rows_max) return bad("partial_outputs: {} rows, at most {} are allowed", m.rows.size(), rows_max);
  for (const auto& row : m.rows)
    if (row.url.size() > url_bytes_max) return bad("partial_outputs: url has more than {} bytes", url_bytes_max);
  return {};
}

expected<void> check(const step_progress& m) {
  if (m.key.empty()) return bad("step_progress: key is empty");
  return {};
}

expected<void> check(const prefetch& m) {
  if (m.inputs->size() > prefetch_inputs_max)
    return bad("prefetch: {} inputs, at most {} are allowed", m.inputs->size(), prefetch_inputs_max);
  return {};
}

expected<void> check(const upstream_wanted& m) {
  if (m.paths.empty() || m.paths.size() > upstream_wanted_max)
    return bad("upstream_wanted: {} paths, 1 to {} are allowed", m.paths.size(), upstream_wanted_max);
  return {};
}

expected<void> check(const get_ticket&) { return {}; }

expected<void> check(const upload_ticket& m) {
  if (m.ticket.empty() || m.url.empty()) return bad("upload_ticket: url or ticket is empty");
  return {};
}

} // namespace coppice
