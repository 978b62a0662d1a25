#include "nix/hash_modulo.hpp"

#include "nix/aterm.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace coppice::nix {

namespace {

/// The hash of a fixed output, which does not say how it is made.
expected<sha256_digest> fixed_digest(const derivation& drv, std::string_view store_dir) {
  const auto& output = drv.outputs.begin()->second;
  if (!output.path) return fail("derivation ", quoted(drv.name), " has a fixed output without a path");
  std::string text = "fixed:out:";
  text += output.hash_algo;
  text += ':';
  text += output.hash;
  text += ':';
  text += output.path->to_string(store_dir);
  return sha256(text);
}

bool is_known_after_build(output_kind kind) {
  return kind == output_kind::floating || kind == output_kind::impure;
}

} // namespace

std::string drv_output_id(const sha256_digest& inhash, std::string_view output) {
  std::string id = "sha256:" + base16_encode(inhash) + '!';
  id += output;
  return id;
}

expected<modulo> hash_modulo(const derivation_view& drv, std::span<const modulo* const> inputs, bool mask,
                             std::string_view store_dir) {
  const auto& head = drv.head();
  if (head.is_fixed_output())
    return fixed_digest(head, store_dir).map([](const sha256_digest& digest) { return modulo{digest, false}; });

  struct input {
    const sha256_digest* digest;
    std::string_view wanted;
  };
  std::vector<input> sorted;
  sorted.reserve(inputs.size());
  modulo result;
  result.deferred = is_known_after_build(head.kind());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    sorted.push_back({&inputs[i]->digest, drv.inputs()[i].wanted});
    result.deferred |= inputs[i]->deferred;
  }
  std::sort(sorted.begin(), sorted.end(), [](const input& a, const input& b) { return *a.digest < *b.digest; });

  std::string text;
  text.reserve(drv.text().size() + 2 * inputs.size() * sizeof(sha256_digest));
  mask ? drv.append_masked_before(text) : void(text += drv.before_inputs());
  text += '[';
  for (auto first = sorted.begin(); first != sorted.end();) {
    const auto last = std::find_if(first, sorted.end(), [&](const input& i) { return *i.digest != *first->digest; });
    text += first == sorted.begin() ? "(\"" : ",(\"";
    text += base16_encode(*first->digest);
    text += "\",";
    if (last - first == 1) {
      text += first->wanted;
    } else { // two derivations of one result count as one input
      std::set<std::string> wanted;
      for (auto one = first; one != last; ++one) {
        aterm_cursor list{one->wanted};
        std::string name;
        auto read = list.list([&] { return list.string(name).map([&] { wanted.insert(name); }); });
        if (!read) return tl::unexpected<error>(std::move(read.error()));
      }
      aterm_writer{text, store_dir}.strings(wanted);
    }
    text += ')';
    first = last;
  }
  text += ']';
  mask ? drv.append_masked_after(text) : void(text += drv.after_inputs());
  result.digest = sha256(text);
  return result;
}

modulo_cache::modulo_cache(lookup find, std::string_view store_dir) : find_(std::move(find)), store_dir_(store_dir) {}

/// Requires that every input is known, unless `drv` is fixed-output.
expected<modulo> modulo_cache::from_known(const derivation& drv, bool mask) {
  if (drv.is_fixed_output())
    return fixed_digest(drv, store_dir_).map([](const sha256_digest& digest) { return modulo{digest, false}; });

  struct input {
    const modulo* hash;
    const std::set<std::string>* wanted;
  };
  std::vector<input> inputs;
  inputs.reserve(drv.input_drvs.size());
  modulo result;
  result.deferred = is_known_after_build(drv.kind());
  for (const auto& [path, wanted] : drv.input_drvs) {
    const auto& known = known_.at(path);
    inputs.push_back({&known, &wanted});
    result.deferred |= known.deferred;
  }
  // Bytes in ascending order are hexadecimal in ascending order.
  std::sort(inputs.begin(), inputs.end(),
            [](const input& a, const input& b) { return a.hash->digest < b.hash->digest; });

  text_.clear();
  aterm_writer to{text_, store_dir_};
  to.open("Derive(");
  to.outputs(drv, mask);
  text_ += '[';
  for (auto first = inputs.begin(); first != inputs.end();) {
    const auto& digest = first->hash->digest;
    const auto last = std::find_if(first, inputs.end(), [&](const input& i) { return i.hash->digest != digest; });
    text_ += first == inputs.begin() ? "(\"" : ",(\"";
    text_ += base16_encode(digest);
    text_ += "\",";
    if (last - first == 1) {
      to.strings(*first->wanted);
    } else { // two derivations of one result count as one input
      std::set<std::string> wanted;
      for (auto one = first; one != last; ++one)
        wanted.insert(one->wanted->begin(), one->wanted->end());
      to.strings(wanted);
    }
    text_ += ')';
    first = last;
  }
  text_ += "],";
  to.rest(drv, mask);
  result.digest = sha256(text_);
  return result;
}

/// Makes every input of `drv` known, transitively. The stack is a vector: graphs may be very deep.
expected<void> modulo_cache::resolve_inputs(const derivation& drv) {
  struct frame {
    const store_path* path; // null for `drv` itself
    const derivation* drv;
    std::map<store_path, std::set<std::string>>::const_iterator next;
  };
  if (drv.is_fixed_output()) return {};
  std::vector<frame> stack{{nullptr, &drv, drv.input_drvs.begin()}};
  std::unordered_map<store_path, bool> open; // on the stack
  for (;;) {
    auto& top = stack.back();
    if (top.next == top.drv->input_drvs.end()) {
      if (top.path == nullptr) return {};
      auto hash = from_known(*top.drv, false);
      if (!hash) return tl::unexpected<error>(std::move(hash.error()));
      known_.emplace(*top.path, *hash);
      open.erase(*top.path);
      stack.pop_back();
      continue;
    }
    const auto& [path, wanted] = *top.next;
    const auto* input = find_(path);
    if (input == nullptr)
      return fail("derivation ", path.to_string(store_dir_), ", an input of ", quoted(top.drv->name), ", is not known");
    for (const auto& output : wanted)
      if (!input->outputs.contains(output))
        return fail("derivation ", quoted(top.drv->name), " wants output ", quoted(output), " of ",
                    path.to_string(store_dir_), ", which has none of that name");
    ++top.next;
    if (known_.contains(path)) continue;
    if (!open.emplace(path, true).second)
      return fail("derivation ", path.to_string(store_dir_), " is an input of itself");
    const auto end = input->input_drvs.end();
    stack.push_back({&path, input, input->is_fixed_output() ? end : input->input_drvs.begin()});
  }
}

expected<modulo> modulo_cache::of(const store_path& drv_path) {
  if (const auto known = known_.find(drv_path); known != known_.end()) return known->second;
  const auto* drv = find_(drv_path);
  if (drv == nullptr) return fail("derivation ", drv_path.to_string(store_dir_), " is not known");
  if (auto resolved = resolve_inputs(*drv); !resolved) return tl::unexpected<error>(std::move(resolved.error()));
  auto hash = from_known(*drv, false);
  if (hash) known_.emplace(drv_path, *hash);
  return hash;
}

expected<modulo> modulo_cache::masked(const derivation& drv) {
  if (auto resolved = resolve_inputs(drv); !resolved) return tl::unexpected<error>(std::move(resolved.error()));
  return from_known(drv, true);
}

expected<sha256_digest> modulo_cache::inhash_of(const derivation& drv) {
  return masked(drv).map([](const modulo& hash) { return hash.digest; });
}

expected<sha256_digest> modulo_cache::inhash_of(const store_path& drv_path) {
  const auto* drv = find_(drv_path);
  if (drv == nullptr) return fail("derivation ", drv_path.to_string(store_dir_), " is not known");
  return inhash_of(*drv);
}

expected<std::map<std::string, store_path>> modulo_cache::output_paths(const derivation& drv) {
  return masked(drv).and_then([&](const modulo& hash) { return nix::output_paths(drv, hash, store_dir_); });
}

expected<void> modulo_cache::verify_output_paths(const derivation& drv) {
  return masked(drv).and_then([&](const modulo& hash) { return nix::verify_output_paths(drv, hash, store_dir_); });
}

expected<std::map<std::string, store_path>> output_paths(const derivation& drv, const modulo& masked,
                                                         std::string_view store_dir) {
  std::map<std::string, store_path> paths;
  if (masked.deferred) return paths;
  for (const auto& [name, output] : drv.outputs) {
    const auto path_name = output_path_name(drv.name, name);
    auto path = drv.is_fixed_output()
                    ? output.content_hash().and_then([&, method = output.method()](const nix::hash& content) {
                        return fixed_output_path(path_name, method, content, {}, false, store_dir);
                      })
                    : make_store_path("output:" + name, masked.digest, path_name, store_dir);
    if (!path) return tl::unexpected<error>(std::move(path.error()));
    paths.emplace(name, std::move(*path));
  }
  return paths;
}

expected<void> verify_output_paths(const derivation& drv, const modulo& masked, std::string_view store_dir) {
  const auto paths = output_paths(drv, masked, store_dir);
  if (!paths) return tl::unexpected<error>(paths.error());
  for (const auto& [name, output] : drv.outputs) {
    const auto shown = [&, name = std::string_view{name}] {
      return "output " + quoted(name) + " of derivation " + quoted(drv.name);
    };
    const auto right = paths->find(name);
    if (output.path && right == paths->end())
      return fail(shown(), " states a path although it depends on a floating output");
    if (output.path && *output.path != right->second)
      return fail(shown(), " states the path ", output.path->to_string(store_dir), ", right is ",
                  right->second.to_string(store_dir));
    const auto variable = drv.env.find(name);
    const auto stated = variable == drv.env.end() ? std::string_view{} : std::string_view{variable->second};
    // A deferred output's variable is empty until the path is filled in; a floating one's holds a placeholder.
    const bool may_be_empty = output.kind() == output_kind::deferred;
    if (is_known_after_build(output.kind()) || (may_be_empty && stated.empty())) continue;
    if (right == paths->end() || stated != right->second.to_string(store_dir))
      return fail(shown(), " is not what its environment variable states");
  }
  return {};
}

} // namespace coppice::nix
