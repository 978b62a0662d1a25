#include "messages/check.hpp"

#include "messages/utf8.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace coppice {

namespace {

template <class... Ts>
tl::unexpected<error> bad(fmt::format_string<Ts...> f, Ts&&... xs) {
  return fail(ec::bad_message, fmt::format(f, std::forward<Ts>(xs)...));
}

expected<void> check_id(const request_id& id, std::string_view field) {
  if (id.empty()) return bad("{} is empty", field);
  return {};
}

expected<void> check_limit(std::uint32_t limit, std::string_view field) {
  if (limit > rows_max) return bad("{} {}, at most {} are allowed", field, limit, rows_max);
  return {};
}

bool is_node_name(const node_id& node) {
  return node.value.size() <= node_name_bytes_max && is_printable(node.value);
}

expected<void> check_root(const request_root& root) {
  if (!root.drv.is_derivation()) return bad("submit_request: root {} is not a derivation", root.drv.base_name());
  if (root.outputs.size() > outputs_per_root_max) {
    return bad("submit_request: {} outputs of root {}, at most {} are allowed", root.outputs.size(),
               root.drv.base_name(), outputs_per_root_max);
  }
  for (const auto& name : root.outputs) {
    if (auto ok = nix::check_store_name(name); !ok) return bad("submit_request: output name: {}", ok.error().what);
    if (std::count(root.outputs.begin(), root.outputs.end(), name) > 1) {
      return bad("submit_request: output {} of root {} is named twice", name, root.drv.base_name());
    }
  }
  return {};
}

} // namespace

expected<void> check(const get_info&) {
  return {};
}

expected<void> check(const find_missing& m) {
  if (m.sources.size() > sources_per_query_max) {
    return bad("find_missing: {} sources, at most {} are allowed", m.sources.size(), sources_per_query_max);
  }
  if (m.closure.empty()) return bad("find_missing: closure is empty");
  return {};
}

expected<void> check(const submit_request& m) {
  if (auto ok = check_id(m.id, "submit_request: id"); !ok) return ok;
  const auto& body = m.body;
  if (body.roots.empty() || body.roots.size() > roots_max) {
    return bad("submit_request: {} roots, 1 to {} are allowed", body.roots.size(), roots_max);
  }
  for (const auto& root : body.roots) {
    if (auto ok = check_root(root); !ok) return ok;
  }
  if (body.closure.empty()) return bad("submit_request: closure is empty");
  if (body.priority < -priority_max || body.priority > priority_max) {
    return bad("submit_request: priority {}, -{} to {} are allowed", body.priority, priority_max, priority_max);
  }
  return {};
}

expected<void> check(const poll_request& m) {
  if (m.wait_ms > poll_wait_ms_max) {
    return bad("poll_request: wait_ms {}, at most {} are allowed", m.wait_ms, poll_wait_ms_max);
  }
  return check_id(m.id, "poll_request: id");
}

expected<void> check(const get_requests& m) {
  if (auto ok = check_limit(m.limit, "get_requests: limit"); !ok) return ok;
  return check_limit(m.open_limit, "get_requests: open_limit");
}

expected<void> check(const cancel_request& m) {
  return check_id(m.id, "cancel_request: id");
}

expected<void> check(const find_log& m) {
  if (m.drv && !m.drv->is_derivation()) return bad("find_log: {} is not a derivation", m.drv->base_name());
  if (!m.drv && m.key.empty()) return bad("find_log: neither drv nor key is given");
  return {};
}

expected<void> check(const get_tree&) {
  return {};
}

expected<void> check(const kill_actor& m) {
  if (m.path.size() > actor_path_bytes_max || !m.path.starts_with('/') || !is_printable(m.path)) {
    return bad("kill_actor: path is not '/' and printable text of at most {} bytes", actor_path_bytes_max);
  }
  return {};
}

expected<void> check(const follow_events& m) {
  if (m.wait_ms > poll_wait_ms_max) {
    return bad("follow_events: wait_ms {}, at most {} are allowed", m.wait_ms, poll_wait_ms_max);
  }
  if (m.limit == 0 || m.limit > farm_events_per_page_max) {
    return bad("follow_events: limit {}, 1 to {} are allowed", m.limit, farm_events_per_page_max);
  }
  return {};
}

expected<void> check(const ledger::read_attempts& m) {
  if (auto ok = check_limit(m.limit, "read_attempts: limit"); !ok) return ok;
  if (m.before_ms < 0) return bad("read_attempts: before_ms is negative");
  if (m.drv && !m.drv->is_derivation()) return bad("read_attempts: {} is not a derivation", m.drv->base_name());
  return {};
}

expected<void> check(const ledger::held_locks& m) {
  return check_limit(m.limit, "held_locks: limit");
}

expected<void> check(const ledger::read_durations& m) {
  if (m.names.size() > ledger::names_per_query_max) {
    return bad("read_durations: {} names, at most {} are allowed", m.names.size(), ledger::names_per_query_max);
  }
  return {};
}

expected<void> check(const ledger::read_failures& m) {
  if (auto ok = check_limit(m.limit, "read_failures: limit"); !ok) return ok;
  if (m.drv && !m.drv->is_derivation()) return bad("read_failures: {} is not a derivation", m.drv->base_name());
  return {};
}

expected<void> check(const ledger::forget_failures& m) {
  if (m.drv && !m.drv->is_derivation()) return bad("forget_failures: {} is not a derivation", m.drv->base_name());
  return {};
}

expected<void> check(const get_queue& m) {
  return check_limit(m.limit, "get_queue: limit");
}

expected<void> check(const get_nodes&) {
  return {};
}

expected<void> check(const drain_node& m) {
  if (!is_node_name(m.node)) {
    return bad("drain_node: node is no printable text of at most {} bytes", node_name_bytes_max);
  }
  if (m.why.size() > drain_why_bytes_max || !is_printable(m.why)) {
    return bad("drain_node: why is no printable text of at most {} bytes", drain_why_bytes_max);
  }
  return {};
}

expected<void> check(const get_partials& m) {
  return check_limit(m.limit, "get_partials: limit");
}

expected<void> check(const retry_partial& m) {
  if (m.key.empty()) return bad("retry_partial: key is empty");
  if (!is_node_name(m.node)) return bad("retry_partial: node is no printable text of at most {} bytes", node_name_bytes_max);
  return {};
}

expected<void> check(const drop_partial& m) {
  if (m.key.empty()) return bad("drop_partial: key is empty");
  if (!is_node_name(m.node)) return bad("drop_partial: node is no printable text of at most {} bytes", node_name_bytes_max);
  return {};
}

expected<void> check(const mark_gone&) {
  return {};
}

expected<void> check(const explain_query&) {
  return {};
}

} // namespace coppice
