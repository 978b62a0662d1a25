#include "nix/derivation.hpp"

#include "nix/aterm.hpp"

#include <stdexcept>

namespace coppice::nix {

namespace {

constexpr std::string_view recursive_prefix = "r:";
constexpr std::string_view impure_hash = "impure";

expected<nix::hash> declared_hash(const derivation_output& output) {
  auto name = std::string_view{output.hash_algo};
  if (name.starts_with(recursive_prefix)) name.remove_prefix(recursive_prefix.size());
  const auto algo = parse_hash_algo(name);
  if (!algo) return tl::unexpected<error>(algo.error());
  if (output.hash.size() != digest_bytes(*algo) * 2)
    return fail("hash ", quoted(output.hash), " is not base 16 of a ", name);
  return nix::hash::parse_any(output.hash, *algo);
}

/// Reads the seven fields of Derive(…), in order.
class parser {
public:
  parser(std::string_view aterm, std::string name, std::string_view store_dir) : in_(aterm), store_dir_(store_dir) {
    drv_.name = std::move(name);
  }

  expected<derivation> parse() {
    if (auto read = parse_fields(); !read) return tl::unexpected<error>(std::move(read.error()));
    if (auto checked = check_output_kinds(drv_); !checked) return tl::unexpected<error>(std::move(checked.error()));
    return std::move(drv_);
  }

private:
  using result = expected<void>;

  result parse_fields() {
    if (in_.starts_with("DrvWithVersion(")) return fail("DrvWithVersion (dynamic derivations) is not supported");
    return check_store_name(drv_.name + ".drv")
        .and_then([&] { return in_.expect("Derive("); })
        .and_then([&] { return in_.list([&] { return parse_output(); }); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.list([&] { return parse_input_drv(); }); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.list([&] { return parse_input_src(); }); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.string(drv_.system); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.string(drv_.builder); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.list([&] { return in_.string(drv_.args.emplace_back()); }); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.list([&] { return parse_variable(); }); })
        .and_then([&] { return in_.expect(")"); })
        .and_then([&] { return in_.end(); });
  }

  result parse_path(store_path& path) {
    return in_.string(text_).and_then([&]() -> result {
      auto parsed = store_path::parse(text_, store_dir_);
      if (!parsed) return tl::unexpected<error>(std::move(parsed.error()));
      path = std::move(*parsed);
      return {};
    });
  }

  result parse_output() {
    std::string name;
    derivation_output output;
    return in_.expect("(")
        .and_then([&] { return in_.string(name); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return parse_output_path(output); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.string(output.hash_algo); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.string(output.hash); })
        .and_then([&] { return in_.expect(")"); })
        .and_then([&] { return add_output(std::move(name), std::move(output)); });
  }

  result parse_output_path(derivation_output& output) {
    if (in_.starts_with("\"\"")) return in_.expect("\"\"");
    return parse_path(output.path.emplace());
  }

  result add_output(std::string name, derivation_output output) {
    if (name.empty()) return fail("an output without a name");
    if (auto checked = check_store_name(output_path_name(drv_.name, name)); !checked)
      return fail_within("output " + quoted(name), checked.error());
    if (auto checked = check_output(output); !checked) return fail_within("output " + quoted(name), checked.error());
    if (!drv_.outputs.emplace(name, std::move(output)).second) return fail("output ", quoted(name), " is listed twice");
    return {};
  }

  result parse_input_drv() {
    store_path path;
    std::set<std::string> wanted;
    return in_.expect("(")
        .and_then([&] { return parse_path(path); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.list([&] { return parse_wanted(wanted); }); })
        .and_then([&] { return in_.expect(")"); })
        .and_then([&] { return add_input_drv(path, std::move(wanted)); });
  }

  result parse_wanted(std::set<std::string>& wanted) {
    return in_.string(text_).and_then([&]() -> result {
      if (!wanted.insert(text_).second) return fail("output ", quoted(text_), " of an input is listed twice");
      return {};
    });
  }

  result add_input_drv(const store_path& path, std::set<std::string> wanted) {
    if (!path.is_derivation()) return fail("input ", path.base_name(), " is no derivation");
    if (!drv_.input_drvs.emplace(path, std::move(wanted)).second)
      return fail("input derivation ", path.base_name(), " is listed twice");
    return {};
  }

  result parse_input_src() {
    store_path path;
    return parse_path(path).and_then([&]() -> result {
      if (!drv_.input_srcs.insert(path).second) return fail("input source ", path.base_name(), " is listed twice");
      return {};
    });
  }

  result parse_variable() {
    std::string key, value;
    return in_.expect("(")
        .and_then([&] { return in_.string(key); })
        .and_then([&] { return in_.expect(","); })
        .and_then([&] { return in_.string(value); })
        .and_then([&] { return in_.expect(")"); })
        .and_then([&]() -> result {
          if (!drv_.env.emplace(key, std::move(value)).second)
            return fail("environment variable ", quoted(key), " is set twice");
          return {};
        });
  }

  aterm_cursor in_;
  std::string_view store_dir_;
  std::string text_; // scratch
  derivation drv_;
};

expected<derivation> parse_as(std::string_view aterm, std::string name, std::string_view store_dir,
                              const std::string& shown) {
  auto parsed = parser{aterm, std::move(name), store_dir}.parse();
  if (!parsed) return fail_within("cannot parse derivation " + shown, parsed.error());
  return parsed;
}

} // namespace

expected<void> check_output(const derivation_output& output) {
  if (output.hash_algo.empty()) {
    if (!output.hash.empty()) return fail("a hash without an algorithm");
    return {};
  }
  auto algo = std::string_view{output.hash_algo};
  if (algo.starts_with(recursive_prefix)) algo.remove_prefix(recursive_prefix.size());
  if (const auto known = parse_hash_algo(algo); !known) return tl::unexpected<error>(known.error());
  const bool fixed = !output.hash.empty() && output.hash != impure_hash;
  if (fixed != output.path.has_value())
    return fail(fixed ? "a fixed output without a path"
                      : "a path stated for an output whose path is known after the build only");
  if (!fixed) return {};
  const auto hash = declared_hash(output);
  if (!hash) return tl::unexpected<error>(hash.error());
  if (hash->base16() != output.hash) return fail("hash ", quoted(output.hash), " is not lower-case");
  return {};
}

expected<void> check_output_kinds(const derivation& drv) {
  for (const auto& [name, output] : drv.outputs)
    if (output.kind() != drv.kind()) return fail("outputs of different kinds: ", quoted(name));
  if (drv.is_fixed_output() && (drv.outputs.size() != 1 || drv.outputs.begin()->first != "out"))
    return fail("a fixed-output derivation must have the one output 'out'");
  return {};
}

output_kind derivation_output::kind() const {
  if (hash == impure_hash) return output_kind::impure;
  if (!hash.empty()) return output_kind::fixed;
  if (!hash_algo.empty()) return output_kind::floating;
  return path ? output_kind::input_addressed : output_kind::deferred;
}

content_method derivation_output::method() const {
  return hash_algo.starts_with(recursive_prefix) ? content_method::recursive : content_method::flat;
}

expected<nix::hash> derivation_output::content_hash() const {
  if (kind() != output_kind::fixed) return fail("the output declares no hash");
  return declared_hash(*this);
}

output_kind derivation::kind() const {
  return outputs.empty() ? output_kind::input_addressed : outputs.begin()->second.kind();
}

std::set<store_path> derivation::references() const {
  auto all = input_srcs;
  for (const auto& [path, wanted] : input_drvs)
    all.insert(path);
  return all;
}

expected<derivation> parse_derivation(std::string_view aterm, std::string name, std::string_view store_dir) {
  const auto shown = quoted(name);
  return parse_as(aterm, std::move(name), store_dir, shown);
}

expected<derivation> parse_derivation(std::string_view aterm, const store_path& drv_path, std::string_view store_dir) {
  const auto shown = drv_path.to_string(store_dir);
  if (!drv_path.is_derivation()) return fail("cannot parse derivation ", shown, ": its name does not end in .drv");
  return parse_as(aterm, std::string{derivation_name(drv_path)}, store_dir, shown);
}

std::string print_derivation(const derivation& drv, std::string_view store_dir) {
  std::string out;
  aterm_writer to{out, store_dir};
  to.open("Derive(");
  to.outputs(drv, false);
  to.list(drv.input_drvs, [&](const auto& input) {
    out += '(';
    to.path(input.first);
    out += ',';
    to.strings(input.second);
    out += ')';
  });
  out += ',';
  to.rest(drv, false);
  return out;
}

store_path derivation_path(const derivation& drv, std::string_view store_dir) {
  auto path = text_path(drv.name + ".drv", print_derivation(drv, store_dir), drv.references(), store_dir);
  if (!path) throw std::invalid_argument(path.error().what);
  return std::move(*path);
}

std::string output_path_name(std::string_view drv_name, std::string_view output) {
  std::string name{drv_name};
  if (output != "out") {
    name += '-';
    name += output;
  }
  return name;
}

std::string_view derivation_name(const store_path& drv_path) {
  auto name = drv_path.name();
  if (name.ends_with(".drv")) name.remove_suffix(4);
  return name;
}

std::string_view name_without_version(std::string_view name) {
  for (auto dash = name.find('-', 1); dash < name.size(); dash = name.find('-', dash + 1)) {
    const auto next = dash + 1 < name.size() ? name[dash + 1] : 'a';
    if (!((next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z'))) return name.substr(0, dash);
  }
  return name;
}

} // namespace coppice::nix
