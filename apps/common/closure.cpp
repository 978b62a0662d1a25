#include "apps/common/closure.hpp"

#include "nix/hash_modulo.hpp"
#include "store/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <unordered_map>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

class closure_reader {
public:
  closure_reader(const fs::path& store_dir, const closure_limits& limits) : store_dir_(store_dir), limits_(limits) {}

  expected<void> add(const nix::store_path& root);
  expected<void> add_sources();
  expected<void> verify_outputs() const;
  derivation_closure take() { return std::move(closure_); }

private:
  struct frame {
    nix::store_path drv;
    std::vector<nix::store_path> inputs;
    std::size_t next = 0;
  };
  expected<frame> open(const nix::store_path& drv, const nix::store_path* wanted_by);
  expected<void> check_name(const nix::store_path& drv) const;
  std::string cycle_text(const nix::store_path& again) const;
  expected<std::set<nix::store_path>> references_of(const nix::store_path& source, const nix::store_path& wanted_by);
  expected<std::set<nix::store_path>> references_in(const nix::store_path& source, std::string_view contents);
  const std::unordered_map<std::string, nix::store_path>& siblings();

  const fs::path& store_dir_;
  const closure_limits& limits_;
  derivation_closure closure_;
  std::vector<frame> stack_;
  std::set<nix::store_path> open_;                                           // those on the stack
  std::vector<nix::store_path> order_;                                       // inputs before those that need them
  std::optional<std::unordered_map<std::string, nix::store_path>> siblings_; // what store_dir_ holds, by hash part
};

expected<closure_reader::frame> closure_reader::open(const nix::store_path& drv, const nix::store_path* wanted_by) {
  const auto file = store_dir_ / drv.base_name();
  const auto needed = wanted_by ? fmt::format(", an input of {},", wanted_by->to_string()) : std::string{};
  if (!drv.is_derivation())
    return fail(ec::invalid,
                fmt::format("{}{} is not a derivation: its name does not end in .drv", drv.to_string(), needed));
  if (closure_.derivations.size() >= limits_.derivations_max)
    return fail(ec::limit_exceeded, fmt::format("more than {} derivations are needed", limits_.derivations_max));
  auto aterm = store::read_file(file, limits_.derivation_bytes_max);
  if (!aterm) {
    if (aterm.error().code == ec::missing)
      return fail(ec::missing,
                  fmt::format("derivation {}{} is missing: there is no {}", drv.to_string(), needed, file.string()));
    return tl::unexpected(aterm.error());
  }
  auto parsed = nix::parse_derivation(*aterm, drv);
  if (!parsed) return fail(ec::invalid, fmt::format("{}: {}", file.string(), parsed.error().what));
  frame result{drv, {}, 0};
  for (const auto& [input, outputs] : parsed->input_drvs)
    result.inputs.push_back(input);
  closure_.derivations.emplace(drv, derivation_closure::entry{std::move(*aterm), std::move(*parsed)});
  return result;
}

std::string closure_reader::cycle_text(const nix::store_path& again) const {
  auto at = std::find_if(stack_.begin(), stack_.end(), [&](const frame& f) { return f.drv == again; });
  std::string text = "derivations need each other in a cycle: ";
  for (; at != stack_.end(); ++at)
    text += at->drv.to_string() + " -> ";
  return text + again.to_string();
}

expected<void> closure_reader::check_name(const nix::store_path& drv) const {
  const auto& entry = closure_.derivations.at(drv);
  const auto path = nix::text_path(drv.name(), entry.aterm, entry.parsed.references());
  if (path && *path == drv) return {};
  return fail(ec::invalid,
              fmt::format("{} is not what its name says: its contents belong to {}",
                          (store_dir_ / drv.base_name()).string(), path ? path->to_string() : path.error().what));
}

expected<void> closure_reader::add(const nix::store_path& root) {
  const auto push = [&](const nix::store_path& drv, const nix::store_path* wanted_by) -> expected<void> {
    auto opened = open(drv, wanted_by);
    if (!opened) return tl::unexpected(opened.error());
    open_.insert(drv);
    stack_.push_back(std::move(*opened));
    return {};
  };
  if (closure_.derivations.contains(root)) return {};
  if (auto pushed = push(root, nullptr); !pushed) return pushed;
  while (!stack_.empty()) {
    auto& top = stack_.back();
    if (top.next == top.inputs.size()) {
      // Not before: a cycle is found as such, although no cycle has the right names.
      if (auto checked = check_name(top.drv); !checked) return checked;
      order_.push_back(top.drv);
      open_.erase(top.drv);
      stack_.pop_back();
      continue;
    }
    const auto input = top.inputs[top.next++];
    if (open_.contains(input)) return fail(ec::invalid, cycle_text(input));
    if (closure_.derivations.contains(input)) continue;
    const auto wanted_by = top.drv; // push() may move the stack
    if (auto pushed = push(input, &wanted_by); !pushed) return pushed;
  }
  return {};
}

const std::unordered_map<std::string, nix::store_path>& closure_reader::siblings() {
  if (siblings_) return *siblings_;
  siblings_.emplace();
  std::error_code ignored; // an unreadable directory has no siblings to refer to
  for (const auto& entry : fs::directory_iterator(store_dir_, ignored))
    if (auto path = nix::store_path::from_base_name(entry.path().filename().string()))
      siblings_->emplace(std::string(path->hash_part()), *path);
  return *siblings_;
}

expected<std::set<nix::store_path>> closure_reader::references_in(const nix::store_path& source,
                                                                  std::string_view contents) {
  if (source.is_derivation()) {
    auto parsed = nix::parse_derivation(contents, source);
    if (parsed) return parsed->references();
  }
  std::set<nix::store_path> found;
  const auto prefix = std::string(nix::default_store_dir) + "/";
  for (auto at = contents.find(prefix); at != contents.npos; at = contents.find(prefix, at + 1)) {
    const auto known = siblings().find(std::string(contents.substr(at + prefix.size(), nix::hash_part_chars)));
    if (known != siblings().end()) found.insert(known->second);
  }
  if (found.empty()) return found;
  // Only texts refer to something, and their name says to what; a source file that just mentions a path does not.
  const auto path = nix::text_path(source.name(), contents, found);
  return path && *path == source ? found : std::set<nix::store_path>{};
}

expected<std::set<nix::store_path>> closure_reader::references_of(const nix::store_path& source,
                                                                  const nix::store_path& wanted_by) {
  const auto file = store_dir_ / source.base_name();
  std::error_code error;
  const auto status = fs::symlink_status(file, error);
  if (!fs::exists(status))
    return fail(ec::missing, fmt::format("source {}, needed by {}, is missing: there is no {}", source.to_string(),
                                         wanted_by.to_string(), file.string()));
  if (!fs::is_regular_file(status) || fs::file_size(file, error) > limits_.text_bytes_max || error)
    return std::set<nix::store_path>{};
  auto contents = store::read_file(file, limits_.text_bytes_max);
  if (!contents) return tl::unexpected(contents.error());
  return references_in(source, *contents);
}

expected<void> closure_reader::add_sources() {
  std::map<nix::store_path, nix::store_path> todo; // with who needs it
  for (const auto& [drv, entry] : closure_.derivations)
    for (const auto& source : entry.parsed.input_srcs)
      todo.emplace(source, drv);
  while (!todo.empty()) {
    const auto [source, wanted_by] = *todo.begin();
    todo.erase(todo.begin());
    auto references = references_of(source, wanted_by);
    if (!references) return tl::unexpected(references.error());
    for (const auto& reference : *references)
      if (reference != source && !closure_.sources.contains(reference)) todo.emplace(reference, source);
    closure_.sources.emplace(source, std::move(*references));
  }
  return {};
}

expected<void> closure_reader::verify_outputs() const {
  nix::modulo_cache cache([&](const nix::store_path& drv) -> const nix::derivation* {
    const auto found = closure_.derivations.find(drv);
    return found == closure_.derivations.end() ? nullptr : &found->second.parsed;
  });
  for (const auto& drv : order_) {
    const auto verified = cache.verify_output_paths(closure_.derivations.at(drv).parsed);
    if (!verified) return fail(ec::invalid, fmt::format("{}: {}", drv.to_string(), verified.error().what));
  }
  return {};
}

} // namespace

expected<derivation_closure> read_closure(const std::vector<nix::store_path>& roots, const fs::path& store_dir,
                                          const closure_limits& limits) {
  closure_reader reader(store_dir, limits);
  for (const auto& root : roots)
    if (auto added = reader.add(root); !added) return tl::unexpected(added.error());
  if (auto verified = reader.verify_outputs(); !verified) return tl::unexpected(verified.error());
  if (auto added = reader.add_sources(); !added) return tl::unexpected(added.error());
  return reader.take();
}

} // namespace coppice::app
