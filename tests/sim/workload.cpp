#include "tests/sim/workload.hpp"

#include "nix/hash.hpp"
#include "store/closure.hpp"
#include "tests/support/scratch_dir.hpp"

#include <algorithm>
#include <memory>
#include <set>

namespace coppice::sim {

namespace {

constexpr std::size_t steps_max = 6, inputs_max = 3, requests_max = 3;

template <class T>
T need(nix::expected<T> x) {
  if (!x) throw std::logic_error(x.error().what);
  return std::move(*x);
}

} // namespace

workload::workload(std::uint64_t number) {
  dice d{number};
  const auto steps = d.between(2, steps_max), requests = d.between(1, requests_max);
  for (std::size_t i = 0; i < steps; ++i)
    add_step(d);
  for (std::size_t i = 0; i < requests; ++i)
    add_request(d);
}

void workload::add_step(dice& d) {
  step s;
  const auto n = steps_.size();
  s.name = "step" + std::to_string(n);
  s.fixed = n == 0 && d.chance(0.3);
  if (!s.fixed) {
    s.fails = d.chance(0.08);
    s.dies = !s.fails && d.chance(0.04);
  }
  std::set<std::size_t> inputs;
  for (auto i = n == 0 ? 0 : d.between(n > 2 ? 1 : 0, std::min(n, inputs_max)); i > 0; --i)
    inputs.insert(d.below(n));
  s.inputs.assign(inputs.begin(), inputs.end());
  nix::derivation drv;
  drv.name = drv.env["name"] = s.name;
  drv.system = "x86_64-linux";
  drv.builder = "/bin/sh";
  s.doomed = s.fails || s.dies;
  for (auto i : s.inputs) {
    auto& input = steps_[i];
    s.doomed |= input.doomed;
    s.text += input.out.to_string() + "\n";
    drv.input_drvs[input.drv].insert("out");
  }
  s.text += s.name + "\n";
  drv.env["text"] = s.text;
  auto& out = drv.outputs["out"];
  if (s.fixed) {
    const auto hash = nix::hash_of(nix::hash_algo::sha256, s.text);
    out.hash_algo = drv.env["outputHashAlgo"] = "sha256";
    out.hash = drv.env["outputHash"] = hash.base16();
    drv.env["outputHashMode"] = "flat";
    out.path = need(nix::fixed_output_path(s.name, nix::content_method::flat, hash));
  } else {
    drv.env["out"];
    out.path = need(modulo_.output_paths(drv)).at("out");
  }
  drv.env["out"] = out.path->to_string();
  s.out = *out.path;
  s.drv = nix::derivation_path(drv);
  all_.emplace(s.drv, std::move(drv));
  s.key = {need(modulo_.inhash_of(s.drv))};
  steps_.push_back(std::move(s));
}

void workload::add_request(dice& d) {
  request r;
  const auto number = requests_.size();
  for (auto& byte : r.id.bytes)
    byte = static_cast<std::uint8_t>(d.below(256));
  if (number > 0 && d.chance(0.3)) {
    r.roots = requests_[0].roots; // the same again, by somebody else
  } else {
    std::set<std::size_t> roots{steps_.size() - 1};
    if (d.chance(0.4)) roots = {d.below(steps_.size())};
    if (d.chance(0.4)) roots.insert(d.below(steps_.size()));
    r.roots.assign(roots.begin(), roots.end());
  }
  for (auto root : r.roots) {
    r.doomed |= steps_[root].doomed;
    r.drvs.push_back(steps_[root].drv);
  }
  r.packed = pack(r.roots);
  r.closure = store::closure_id(r.packed);
  requests_.push_back(std::move(r));
}

std::string workload::pack(const std::vector<std::size_t>& roots) const {
  std::set<std::size_t> wanted;
  auto left = roots;
  while (!left.empty()) {
    const auto i = left.back();
    left.pop_back();
    if (wanted.insert(i).second) left.insert(left.end(), steps_[i].inputs.begin(), steps_[i].inputs.end());
  }
  std::vector<std::pair<nix::store_path, std::string>> texts;
  for (auto i : wanted)
    texts.emplace_back(steps_[i].drv, nix::print_derivation(all_.at(steps_[i].drv)));
  std::sort(texts.begin(), texts.end());
  return test::need(store::pack_closure(texts));
}

const workload::step* workload::by_drv(const nix::store_path& drv) const {
  for (auto& s : steps_)
    if (s.drv == drv) return &s;
  return nullptr;
}

const workload& workload_of(std::uint64_t seed) {
  static std::map<std::uint64_t, std::unique_ptr<workload>> made;
  const auto number = seed % workloads_max;
  auto& w = made[number];
  if (!w) w = std::make_unique<workload>(number);
  return *w;
}

} // namespace coppice::sim
