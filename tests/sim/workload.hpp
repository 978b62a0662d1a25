#pragma once

#include "messages/build.hpp"
#include "nix/derivation.hpp"
#include "nix/hash_modulo.hpp"
#include "tests/sim/builders.hpp"
#include "tests/sim/dice.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace coppice::sim {

/// What is asked of a farm: a random graph of derivations, and requests for parts of it. A function of its number.
class workload {
public:
  struct step {
    std::string name;
    nix::store_path drv, out;
    inhash key;
    std::string text; ///< what its output holds
    std::vector<std::size_t> inputs;
    bool fixed = false; ///< its output's content is declared
    bool fails = false, dies = false;
    bool doomed = false; ///< it or something below it fails or dies
  };
  struct request {
    request_id id;
    std::vector<std::size_t> roots;
    std::vector<nix::store_path> drvs; ///< of the roots
    std::string packed;                ///< its derivation closure
    blob_id closure;
    bool doomed = false;
  };

  explicit workload(std::uint64_t number);
  workload(const workload&) = delete;
  workload& operator=(const workload&) = delete;

  const std::vector<step>& steps() const { return steps_; }
  const std::vector<request>& requests() const { return requests_; }
  const step* by_drv(const nix::store_path& drv) const;

private:
  void add_step(dice& d);
  void add_request(dice& d);
  std::string pack(const std::vector<std::size_t>& roots) const;

  std::vector<step> steps_;
  std::vector<request> requests_;
  std::map<nix::store_path, nix::derivation> all_;
  nix::modulo_cache modulo_{[this](const nix::store_path& path) -> const nix::derivation* {
    auto found = all_.find(path);
    return found == all_.end() ? nullptr : &found->second;
  }};
};

/// Workloads are drawn from so many; each is made once.
inline constexpr std::uint64_t workloads_max = 48;
const workload& workload_of(std::uint64_t seed);

} // namespace coppice::sim
