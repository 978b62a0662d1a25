#include "bench/support/debian_graph.hpp"

#include "nix/derivation.hpp"
#include "nix/hash_modulo.hpp"
#include "nix/word.hpp"
#include "store/compression.hpp"
#include "store/files.hpp"

#include <cstdint>
#include <fstream>
#include <sstream>
#include <unordered_map>

namespace coppice::bench {

namespace {

/// One line of the workload; `needs` are indices of earlier ones.
struct package {
  std::string name;
  std::vector<std::size_t> needs;
  bool needed = false;
};

expected<std::vector<package>> read_packages(std::size_t packages_max) {
  const std::filesystem::path file = COPPICE_BENCH_DIR "/workloads/debian/builddeps.tsv.zst";
  constexpr std::uint64_t bytes_max = 64 << 20;
  auto packed = store::read_file(file, bytes_max);
  if (!packed) return tl::unexpected(packed.error());
  store::decompress_limits limits;
  limits.bytes_max = bytes_max;
  auto text = store::decompress(*packed, limits);
  if (!text) return tl::unexpected(text.error());

  std::vector<package> packages;
  std::unordered_map<std::string, std::size_t> index;
  std::istringstream in{*text};
  std::string line;
  std::getline(in, line); // the heading
  while (packages.size() < packages_max && std::getline(in, line)) {
    std::istringstream fields{line};
    package p;
    std::uint64_t source_bytes = 0, installed_kib = 0;
    fields >> p.name >> source_bytes >> installed_kib;
    for (std::string need; fields >> need;) {
      const auto found = index.find(need);
      if (found == index.end())
        return fail(ec::invalid, file.string() + ": " + p.name + " needs " + need + ", which comes later");
      p.needs.push_back(found->second);
      packages[found->second].needed = true;
    }
    index.emplace(p.name, packages.size());
    packages.push_back(std::move(p));
  }
  return packages;
}

/// Makes one derivation after the other; only paths and hashes of the earlier ones are kept.
class maker {
public:
  struct made {
    nix::store_path drv, out;
  };

  maker() { any_.outputs.emplace("out", nix::derivation_output{}); }

  expected<made> add(std::string name, const std::vector<made>& inputs) {
    nix::derivation drv;
    drv.name = std::move(name);
    drv.system = "x86_64-linux";
    drv.builder = "/bin/sh";
    drv.args = {"-c", "echo $name > $out"};
    drv.env = {{"name", drv.name}, {"system", drv.system}, {"builder", drv.builder}, {"out", ""}};
    auto& build_inputs = drv.env["buildInputs"];
    for (const auto& input : inputs) {
      drv.input_drvs[input.drv].insert("out");
      if (!build_inputs.empty()) build_inputs += ' ';
      build_inputs += input.out.to_string();
    }
    drv.outputs.emplace("out", nix::derivation_output{});

    const auto masked = modulo_.masked(drv);
    if (!masked) return fail(ec::invalid, masked.error().what);
    auto out = nix::make_store_path("output:out", masked->digest, drv.name);
    if (!out) return fail(ec::invalid, out.error().what);
    drv.outputs["out"].path = *out;
    drv.env["out"] = out->to_string();
    auto path = nix::derivation_path(drv);
    current_ = &drv;
    current_path_ = &path;
    const auto hashed = modulo_.of(path);
    current_ = nullptr;
    if (!hashed) return fail(ec::invalid, hashed.error().what);
    graph.derivations.emplace_back(path, nix::print_derivation(drv));
    graph.root = path;
    return made{std::move(path), std::move(*out)};
  }

  derivation_graph graph;

private:
  nix::derivation any_; // stands for every earlier one: its hash is known, so only its outputs are looked at
  const nix::derivation* current_ = nullptr;
  const nix::store_path* current_path_ = nullptr;
  nix::modulo_cache modulo_{[this](const nix::store_path& path) -> const nix::derivation* {
    return current_ != nullptr && path == *current_path_ ? current_ : &any_;
  }};
};

} // namespace

expected<derivation_graph> make_debian_graph(const graph_options& options) {
  const auto packages = read_packages(options.packages_max);
  if (!packages) return tl::unexpected(packages.error());
  maker m;
  std::vector<maker::made> tops;
  for (std::size_t copy = 0; copy < options.copies; ++copy) {
    std::vector<maker::made> all;
    for (const auto& p : *packages) {
      std::vector<maker::made> inputs;
      for (const auto need : p.needs)
        inputs.push_back(all[need]);
      auto made = m.add(copy == 0 ? p.name : p.name + "-" + std::to_string(copy), inputs);
      if (!made) return tl::unexpected(made.error());
      if (!p.needed) tops.push_back(*made);
      all.push_back(std::move(*made));
    }
  }
  if (auto made = m.add("all", tops); !made) return tl::unexpected(made.error());
  return std::move(m.graph);
}

expected<derivation_graph> make_flat_graph(std::size_t count, std::uint64_t salt) {
  maker m;
  for (std::size_t i = 0; i < count; ++i)
    if (auto made = m.add("trivial-" + std::to_string(salt) + "-" + std::to_string(i), {}); !made)
      return tl::unexpected(made.error());
  return std::move(m.graph);
}

expected<void> write_nix_store(const derivation_graph& graph, const std::filesystem::path& root) {
  const auto dir = root / "nix/store";
  if (auto made = store::make_directories(dir); !made) return made;
  std::ofstream registration{root / "registration"};
  for (const auto& [path, aterm] : graph.derivations) {
    const auto parsed = nix::parse_derivation(aterm, path);
    if (!parsed) return fail(ec::invalid, parsed.error().what);
    std::string nar;
    for (const auto* word : {"nix-archive-1", "(", "type", "regular", "contents"})
      nix::append_word(nar, word);
    nix::append_word(nar, aterm);
    nix::append_word(nar, ")");
    registration << path.to_string() << '\n' << nix::hash_of(nix::hash_algo::sha256, nar).base16() << '\n';
    const auto references = parsed->references();
    registration << nar.size() << "\n\n" << references.size() << '\n';
    for (const auto& reference : references)
      registration << reference.to_string() << '\n';
    std::ofstream{dir / path.base_name(), std::ios::binary} << aterm;
  }
  registration.close();
  if (!registration) return fail(ec::io, "cannot write " + (root / "registration").string());
  return {};
}

} // namespace coppice::bench
