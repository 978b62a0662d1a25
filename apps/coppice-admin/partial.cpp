#include "apps/common/admin_report.hpp"
#include "apps/common/evaluate.hpp"
#include "apps/common/pages.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/coppice-admin/commands.hpp"
#include "apps/coppice-admin/output.hpp"
#include "messages/client.hpp"
#include "nix/hash.hpp"
#include "runtime/random.hpp"
#include "store/held_fetch.hpp"
#include "store/nar_files.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

/// All outputs that are kept, and who did not say what it keeps.
template <class Each>
expected<std::vector<machine_reason>> each_partial(farm& f, Each each) {
  std::vector<machine_reason> silent;
  auto done = each_row<partial_output>(
      SIZE_MAX, page_rows_max,
      [&](auto* last, std::uint32_t limit) {
        auto page = f.ask<partial_outputs>("inspector", "partials", get_partials{last ? last->key : inhash{}, limit});
        if (page) silent = page->silent;
        return rows_of(std::move(page));
      },
      each);
  if (!done) return tl::unexpected(done.error());
  return silent;
}

std::string silent_text(const std::vector<machine_reason>& silent) {
  std::string text;
  for (const auto& s : silent)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", cleaned(s.node.value), cleaned(s.why));
  return text;
}

/// Those that are kept of this derivation, or all.
expected<std::vector<partial_output>> find_partials(farm& f, const std::string& what) {
  std::optional<nix::store_path> drv;
  if (what != "all") {
    auto root = parse_root(what);
    if (!root) return tl::unexpected(root.error());
    drv = root->drv;
  }
  std::vector<partial_output> found;
  auto done = each_partial(f, [&](const partial_output& row) {
    if (!drv || row.drv == *drv) found.push_back(row);
  });
  if (!done) return tl::unexpected(done.error());
  if (drv && found.empty())
    return fail(ec::not_found,
                fmt::format("no outputs of {} wait to be uploaded{}; see 'partial list'", what,
                            done->empty() ? "" : " where it could be asked (" + silent_text(*done) + ")"));
  return found;
}

/// Does it to each of them; the first error ends it. Of all, those that went by themselves since they were listed are none.
template <class Make>
expected<void> order_partials(farm& f, const std::string& what, const std::string& method, const std::string& done,
                              bool json, Make make) {
  auto rows = find_partials(f, what);
  if (!rows) return tl::unexpected(rows.error());
  for (const auto& row : *rows) {
    auto ordered = f.ask<ledger::done>("inspector", method, make(row));
    if (!ordered && what == "all" && ordered.error().code == ec::not_found) continue;
    if (!ordered)
      return fail(ordered.error().code,
                  fmt::format("cannot {} the outputs of {}: {}", method, row.drv.to_string(), ordered.error().what));
    print_fact({{"drv", row.drv.to_string()},
                {"inhash", row.key.to_string()},
                {"token", row.token.value},
                {"node", row.node.value},
                {"done", done}},
               fmt::format("{}: {} on {}", done, row.drv.to_string(), cleaned(row.node.value)), json);
  }
  return {};
}

/// A machine that keeps an output, and where it gives it.
struct holder {
  node_id node;
  std::string url; ///< empty: nowhere that is known
  kept_output output;
};

expected<std::vector<holder>> find_holders(farm& f, const nix::store_path& path) {
  std::vector<holder> found;
  auto silent = each_partial(f, [&](const partial_output& row) {
    for (const auto& output : row.kept)
      if (output.path == path) found.push_back({row.node, row.url, output});
  });
  if (!silent) return tl::unexpected(silent.error());
  if (found.empty())
    return fail(ec::not_found,
                fmt::format("{} is not among the outputs that are built and not uploaded{}; see 'partial list'",
                            path.to_string(), silent->empty() ? "" : " (no answer from " + silent_text(*silent) + ")"));
  auto about = f.ask<node_info>("gateway", "info", get_info{});
  if (!about) return tl::unexpected(about.error());
  for (auto& h : found) // the node that answers is within reach, perhaps of this machine alone
    if (h.url.empty() && h.node == about->node) h.url = about->http;
  return found;
}

/// Makes `target`, which must not be there, of what the machine gives; nothing is left of what is not as it should be.
expected<void> fetch_from(store::held_fetch& from, const holder& h, const fs::path& target) {
  if (h.url.empty())
    return fail(ec::unavailable,
                "others do not reach it over HTTP: its settings have neither a host that is not its own "
                "in 'http', nor 'http_url'");
  path_info info;
  info.path = h.output.path;
  info.nar_hash = h.output.nar_hash;
  info.nar_size = h.output.nar_size;
  const auto tried = h.url + store::held_target(info);
  const auto temporary =
      target.parent_path() / fmt::format(".{}-{}", info.path.hash_part(), rt::random_id<nonce>().to_string());
  nix::hasher hasher;
  auto done = store::restore_path(temporary, [&](const store::byte_sink& nar) {
    std::uint64_t at = 0;
    return from.fetch(h.url, info, at, [&](std::string_view bytes) {
      hasher.update(bytes);
      return nar(bytes);
    });
  });
  // the fetch names its URL, the connection does not
  if (!done)
    return fail(done.error().code,
                done.error().what.starts_with(h.url) ? done.error().what : tried + ": " + done.error().what);
  if (const nar_hash hash{hasher.finish().sha256()}; hash != info.nar_hash) {
    if (auto removed = store::remove_tree(temporary); !removed) return removed;
    return fail(ec::corrupt, fmt::format("{}: its NAR has the hash {}, and {} was built", tried, hash.to_string(),
                                         info.nar_hash.to_string()));
  }
  auto moved = store::move_tree(temporary, target);
  if (!moved) (void)store::remove_tree(temporary); // the first error tells
  return moved;
}

} // namespace

expected<void> partial_list_command(farm& f, bool json) {
  listing list({{"TOKEN", 1}, {"NODE", 3}, {"SIZE", 2}, {"DERIVATION"}, {"INHASH", 4}, {"DOING"}}, json);
  auto done = each_partial(f, [&](const partial_output& row) { list.add(partial_json(row), partial_cells(row)); });
  if (!done) return tl::unexpected(done.error());
  const auto silent = silent_text(*done);
  list.end(fmt::format("{} built and not committed", counted(list.size(), "derivation", "derivations")),
           silent.empty() ? "" : "no answer from " + silent);
  if (json && !silent.empty()) std::cerr << "coppice-admin: no answer from " << silent << std::endl;
  return {};
}

expected<void> partial_retry_command(farm& f, const std::string& what, bool json) {
  return order_partials(f, what, "retry", "tried again", json, [](auto& row) {
    return retry_partial{row.key, row.node};
  });
}

expected<void> partial_drop_command(farm& f, const std::string& what, bool json) {
  return order_partials(f, what, "drop", "dropped", json, [](auto& row) {
    return drop_partial{row.key, row.token, row.node};
  });
}

expected<void> partial_fetch_command(farm& f, const partial_fetch_options& options, const std::atomic<bool>& stop,
                                     bool json) {
  const auto path = parse_store_path(options.path);
  if (!path) return tl::unexpected(path.error());
  const auto target = options.out.empty() ? fs::path(path->base_name()) : options.out;
  if (fs::exists(fs::symlink_status(target)))
    return fail(ec::conflict, fmt::format("{} is there already", target.string()));
  const auto holders = find_holders(f, *path);
  if (!holders) return tl::unexpected(holders.error());
  store::held_fetch from(stop);
  std::string failures;
  for (const auto& h : *holders) {
    auto done = fetch_from(from, h, fs::absolute(target));
    if (done) {
      print_fact({{"path", path->to_string()},
                  {"node", h.node.value},
                  {"nar_hash", h.output.nar_hash.to_string()},
                  {"nar_size", h.output.nar_size},
                  {"out", target.string()}},
                 fmt::format("fetched: {} from {}, {}, into {}", path->to_string(), cleaned(h.node.value),
                             bytes_text(h.output.nar_size), target.string()),
                 json);
      return {};
    }
    failures +=
        fmt::format("{}from {}: {}", failures.empty() ? "" : "; ", cleaned(h.node.value), cleaned(done.error().what));
  }
  return fail(ec::io, fmt::format("cannot fetch {} {}", path->to_string(), failures));
}

} // namespace coppice::app
