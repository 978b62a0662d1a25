#include "actors/build/fixed_output.hpp"

#include <stdexcept>

namespace coppice::actors {

std::optional<std::string> fixed_output_fault(const nix::store_path& drv_path, const nix::derivation& drv,
                                              const fixed_output_facts& facts, std::string_view store_dir) {
  if (!drv.is_fixed_output()) throw std::logic_error("not a fixed-output derivation");
  const auto& output = drv.outputs.begin()->second;
  const auto declared = output.content_hash();
  if (!declared) throw std::logic_error(declared.error().what);
  const auto drv_text = drv_path.to_string(store_dir);
  if (output.method() == nix::content_method::flat && !facts.plain_file)
    return "output path '" + output.path->to_string(store_dir) +
           "' should be a non-executable regular file since recursive hashing is not enabled (outputHashMode=flat)";
  if (!facts.references.empty())
    return "fixed-output derivations must not reference store paths: '" + drv_text + "' references " +
           std::to_string(facts.references.size()) + " distinct paths, e.g. '" +
           facts.references.begin()->to_string(store_dir) + "'";
  if (facts.hash != *declared)
    return "hash mismatch in fixed-output derivation '" + drv_text + "':\n  specified: " + declared->sri() +
           "\n     got:    " + facts.hash.sri();
  return std::nullopt;
}

} // namespace coppice::actors
