#include "actors/build/worker_files.hpp"

#include "store/files.hpp"

#include <algorithm>
#include <fstream>
#include <set>

namespace coppice::actors {
namespace {

/// Derivations that are inputs are read up to this size.
constexpr std::uint64_t input_derivation_bytes_max = std::uint64_t{64} << 20;

/// Adds what only exportReferencesGraph asks for: the outputs of derivations that are inputs themselves.
expected<build_inputs> with_outputs(const nix::derivation& drv, std::vector<path_info> closure, const store::local_store& local) {
  build_inputs inputs{std::move(closure)};
  if (!wants_references_graph(drv)) return inputs;
  for (auto& path : derivations_among(inputs.closure)) {
    std::error_code ignored; // then it is no file
    if (!std::filesystem::is_regular_file(std::filesystem::symlink_status(local.real_path(path), ignored))) continue;
    auto text = store::read_file(local.real_path(path), input_derivation_bytes_max);
    if (!text) return tl::unexpected(text.error());
    auto input = nix::parse_derivation(*text, path, local.store_dir());
    if (!input) continue; // a source that is merely named so
    auto& outputs = inputs.outputs_of[path];
    for (auto& [name, output] : input->outputs)
      if (output.path) outputs.insert(*output.path);
  }
  return inputs;
}

/// Adds what refers to these paths, directly or not.
void add_referrers(const store::local_store& local, std::set<nix::store_path>& paths) {
  const auto all = local.paths();
  for (std::size_t before = 0; before != paths.size();) {
    before = paths.size();
    for (auto& path : all)
      if (auto info = local.query(path))
        if (std::any_of(info->references.begin(), info->references.end(), [&](auto& r) { return paths.contains(r); }))
          paths.insert(path);
  }
}

} // namespace

build_scratch::~build_scratch() {
  if (!staging.empty())
    pool.post([d = dir, s = staging, l = log] {
      std::error_code ignored; // here and below: what stays is swept at the next start
      if (d) (void)d->remove();
      (void)store::remove_tree(s);
      std::filesystem::remove(l, ignored);
    });
}

expected<void> prepare_build(const worker_state::config& c, const build_order& order, build_scratch& into) {
  auto inputs = with_outputs(order.drv, order.closure, *c.local);
  if (!inputs) return tl::unexpected(inputs.error());
  auto plan = plan_sandbox(order.drv_path, order.drv, *inputs, c.sandbox);
  if (!plan) return tl::unexpected(plan.error());
  auto staging = c.local->staging();
  if (!staging) return tl::unexpected(staging.error());
  into.staging = *staging;
  std::error_code failed; // the builder's user passes through it
  std::filesystem::permissions(*staging, std::filesystem::perms::others_exec, std::filesystem::perm_options::add, failed);
  if (failed) return fail(ec::io, "cannot open " + staging->string() + " to its builder: " + failed.message());
  build_dir_config where;
  where.dir = *staging / "build";
  where.inputs_dir = c.local->real_dir();
  where.etc_dir = c.etc_dir;
  where.exec_program = c.exec_program;
  where.run_as = c.run_as;
  auto group = c.cgroups->make(order.group, {static_cast<std::int64_t>(c.limits.memory_bytes_max),
                                             static_cast<std::int64_t>(c.limits.processes_max)});
  if (!group) return tl::unexpected(group.error());
  where.group = std::move(*group);
  auto dir = build_dir::make(std::move(*plan), std::move(where));
  if (!dir) return tl::unexpected(dir.error());
  into.dir = std::move(*dir);
  into.log = order.log;
  std::ofstream{order.log}; // ignored: LOG_RELAY tells if it is not there
  return {};
}

expected<void> store_log(store::blob_store& blobs, const std::filesystem::path& file, const std::vector<std::string>& keys) {
  for (auto& key : keys) {
    std::ifstream in(file, std::ios::binary);
    std::error_code unknown;
    if (!in && !std::filesystem::exists(file, unknown) && !unknown) return {};
    if (!in) return fail(ec::io, "cannot read the log " + file.string());
    auto out = blobs.begin();
    if (!out) return tl::unexpected(out.error());
    std::vector<char> block(256 << 10);
    while (in.read(block.data(), static_cast<std::streamsize>(block.size())), in.gcount() > 0)
      if (auto done = (*out)->write({block.data(), static_cast<std::size_t>(in.gcount())}); !done) return done;
    if (in.bad()) return fail(ec::io, "cannot read the log " + file.string());
    if (auto done = (*out)->commit(key); !done) return done;
  }
  return store::remove_file(file);
}

expected<void> remove_outputs(store::local_store& local, std::vector<nix::store_path> paths) {
  for (;;) {
    expected<void> result;
    std::vector<nix::store_path> left;
    for (auto& path : paths)
      if (auto done = local.remove(path); !done) {
        left.push_back(path);
        result = done;
      }
    if (left.empty() || left.size() == paths.size()) return result;
    paths = std::move(left);
  }
}

expected<void> add_outputs(store::local_store& local, const store::kept_journal& kept,
                           const std::vector<std::pair<path_info, std::filesystem::path>>& trees) {
  auto done = local.add_outputs(trees);
  if (done || done.error().code != ec::conflict) return done;
  std::set<nix::store_path> own;
  for (auto& [info, tree] : trees) own.insert(info.path);
  auto former = own;
  add_referrers(local, former);
  auto listing = kept.list();
  if (!listing) return tl::unexpected(listing.error());
  for (auto& entry : listing->entries)
    for (auto& o : entry.outputs)
      if (former.contains(o.info.path) && !own.contains(o.info.path)) return done; // nobody else has it
  if (auto gone = remove_outputs(local, {former.begin(), former.end()}); !gone) return gone;
  return local.add_outputs(trees);
}

} // namespace coppice::actors
