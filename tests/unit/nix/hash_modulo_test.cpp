#include "fixtures.hpp"
#include "nix/hash_modulo.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

/// A chain or layered graph of derivations whose paths are made up, so that nothing needs to be printed.
store_path nth_path(std::size_t n) {
  auto digits = std::to_string(n);
  return good(store_path::from_base_name(std::string(32 - digits.size(), '0') + digits + "-n.drv"));
}

derivation plain(std::string name) {
  derivation drv;
  drv.name = std::move(name);
  drv.outputs["out"] = {};
  drv.system = "x86_64-linux";
  drv.builder = "/bin/sh";
  return drv;
}

} // namespace

TEST_CASE("hashes modulo, output paths and realisation ids of the generated derivations are the oracle's") {
  const drv_store all{"generated/drv"};
  modulo_cache cache{all.lookup()};
  const auto expected_all = read_json(data("generated/expected.json")).at("derivations");
  std::size_t rows = 0, realisations = 0, known_paths = 0, unknown_paths = 0;
  for (const auto& [attribute, shown] : expected_all.items()) {
    INFO(attribute);
    const auto at = path(shown.at("drvPath").get<std::string>());
    const auto& drv = all.at(at);
    const auto inhash = good(cache.inhash_of(at));
    CHECK("sha256:" + base16_encode(inhash) == shown.at("hashModulo"));
    const auto realised = shown.value("realisations", json::object());
    for (const auto& [output, realisation] : realised.items()) {
      if (realisation.is_null()) continue;
      CHECK(drv_output_id(inhash, output) == realisation.at("id"));
      ++realisations;
    }
    const auto out_paths = good(cache.output_paths(drv));
    for (const auto& [name, output] : shown.at("show-derivation").at("outputs").items()) {
      CHECK(out_paths.contains(name) == output.contains("path"));
      if (!output.contains("path")) {
        ++unknown_paths;
        continue;
      }
      CHECK(out_paths.at(name).to_string() == output.at("path"));
      ++known_paths;
    }
    good(cache.verify_output_paths(drv));
    ++rows;
  }
  CHECK(rows == 54);
  CHECK(realisations == 54);
  CHECK(known_paths == 51);
  CHECK(unknown_paths == 8);
}

TEST_CASE("a derivation below a floating one is deferred, the floating one has no path") {
  const drv_store all{"generated/drv"};
  modulo_cache cache{all.lookup()};
  for (const auto& [at, drv] : all.all()) {
    INFO(at.base_name());
    const bool deferred = drv.kind() == output_kind::floating || drv.kind() == output_kind::deferred;
    CHECK(good(cache.of(at)).deferred == deferred);
    CHECK(good(cache.masked(drv)).deferred == deferred);
    CHECK(good(cache.output_paths(drv)).empty() == deferred);
  }
}

TEST_CASE("two fixed outputs with the same result have one inhash, and so have those that use them") {
  const drv_store all{"generated/drv"};
  modulo_cache cache{all.lookup()};
  const auto inhash = [&](const std::string& base) { return good(cache.inhash_of(path("/nix/store/" + base))); };
  CHECK(inhash("8j982ggzv3cpindkgsnx55g4v0n0jmbj-fod-flat-sha256.drv") ==
        inhash("x95dzaz21qsih4nr2k116rf8v13lfdc1-fod-flat-sha256.drv"));
  CHECK(inhash("5blykh8xplh2as764sk7lpk38yzmhb90-uses-fod.drv") ==
        inhash("4dfc68l0b85ylzs7wdblxh2120v27bz4-uses-fod.drv"));
}

TEST_CASE("output paths of tvix's derivations are right") {
  const drv_store all{"from-tvix/derivation_tests/ok"};
  modulo_cache cache{all.lookup()};
  CHECK(all.all().size() == 10);
  for (const auto& [at, drv] : all.all()) {
    INFO(at.base_name());
    good(cache.verify_output_paths(drv));
    CHECK_FALSE(good(cache.output_paths(drv)).empty());
  }
}

TEST_CASE("inputs of one hash are merged, as the hashed texts of the Nix project show") {
  drv_store all;
  const std::string folder = "from-nix/derivation/hash-modulo/";
  std::map<std::string, store_path> at;
  std::map<std::string, derivation> drvs;
  for (const auto* file : {"source-first", "source-second", "intermediate-first", "intermediate-second", "parent-split",
                           "parent-joined"}) {
    const auto shown = read_json(data(folder + file + ".json"));
    const auto text = read(data(folder + file + ".drv"));
    const auto drv = good(parse_derivation(text, shown.at("name").get<std::string>()));
    CHECK(drv == from_json_4(shown));
    CHECK(print_derivation(drv) == text);
    at.emplace(file, derivation_path(drv));
    drvs.emplace(file, drv);
    all.add(derivation_path(drv), drv);
  }
  modulo_cache cache{all.lookup()};
  for (const auto* file : {"intermediate-first", "intermediate-second", "parent-split", "parent-joined"}) {
    INFO(file);
    CHECK(good(cache.inhash_of(at.at(file))) == sha256(read(data(folder + file + "-modulo.drv"))));
  }
  for (const auto* file : {"source-first", "source-second"})
    good(cache.verify_output_paths(drvs.at(file)));
  for (const auto* file : {"intermediate-first", "intermediate-second"}) {
    auto drv = drvs.at(file); // its paths were filled in before the variables of their names were set
    drv.env.clear();
    for (const auto& [name, out_path] : good(cache.output_paths(drv)))
      CHECK(drv.outputs.at(name).path == out_path);
  }
}

TEST_CASE("derivations that state a wrong path are refused") {
  const auto floating_dependency = [] {
    auto drv = plain("dependency");
    drv.outputs["out"].hash_algo = "r:sha256";
    return drv;
  }();
  modulo_cache cache{[&](const store_path&) { return &floating_dependency; }};
  const auto shown = [](const std::string& name) {
    return from_json_4(read_json(data("from-nix/derivation/invariants/" + name + ".json")));
  };
  CHECK(reason(cache.verify_output_paths(shown("bad-path"))).find("right is") != std::string::npos);
  CHECK(reason(cache.verify_output_paths(shown("bad-env-var"))).find("environment") != std::string::npos);
  CHECK(reason(cache.verify_output_paths(shown("bad-depends-on-drv-pre"))).find("floating") != std::string::npos);
  const auto fixed = good(parse_derivation(read(data("from-nix/derivation/bad-ca-fixed-path.drv")), "fixed"));
  CHECK(reason(cache.verify_output_paths(fixed)).find("right is") != std::string::npos);

  good(cache.verify_output_paths(shown("depends-on-drv-pre")));
  CHECK(good(cache.output_paths(shown("depends-on-drv-pre"))).empty());
  good(cache.verify_output_paths(shown("filled-in-idempotent")));
  good(cache.verify_output_paths(shown("filled-in-deferred-empty-env-var-post")));
}

TEST_CASE("a derivation whose environment lacks the path of an output is refused") {
  const drv_store all{"generated/drv"};
  modulo_cache cache{all.lookup()};
  auto drv = all.at(path("/nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-multi-out.drv"));
  drv.env["dev"].clear();
  CHECK(reason(cache.verify_output_paths(drv)).find("output 'dev'") != std::string::npos);
}

TEST_CASE("a deferred output's path follows once it depends on nothing floating") {
  modulo_cache cache{[](const store_path&) -> const derivation* { return nullptr; }};
  const auto shown = [](const std::string& name) {
    return from_json_4(read_json(data("from-nix/derivation/invariants/filled-in-deferred-" + name + ".json")));
  };
  for (const std::string variable : {"empty-env-var", "no-env-var"})
    CHECK(good(cache.output_paths(shown(variable + "-pre"))).at("out") ==
          shown(variable + "-post").outputs.at("out").path);
}

TEST_CASE("a missing input, an output that is not there, and a cycle are refused") {
  drv_store all;
  auto user = plain("user");
  user.input_drvs[nth_path(1)] = {"out"};
  modulo_cache cache{all.lookup()};
  CHECK(reason(cache.inhash_of(user)).find("not known") != std::string::npos);
  CHECK(reason(cache.of(nth_path(1))).find("not known") != std::string::npos);
  CHECK(reason(cache.inhash_of(nth_path(1))).find("not known") != std::string::npos);

  all.add(nth_path(1), plain("n"));
  user.input_drvs[nth_path(1)] = {"dev"};
  CHECK(reason(cache.inhash_of(user)).find("wants output 'dev'") != std::string::npos);

  auto cyclic = plain("n");
  cyclic.input_drvs[nth_path(2)] = {"out"};
  all.add(nth_path(2), cyclic);
  CHECK(reason(cache.inhash_of(nth_path(2))).find("input of itself") != std::string::npos);
  CHECK(reason(cache.of(nth_path(2))).find("input of itself") != std::string::npos);
}

TEST_CASE("a graph 100,000 derivations deep is hashed without recursion") {
  constexpr std::size_t depth = 100'000;
  drv_store all;
  for (std::size_t n = 0; n < depth; ++n) {
    auto drv = plain("n");
    drv.env["n"] = std::to_string(n);
    if (n > 0) drv.input_drvs[nth_path(n - 1)] = {"out"};
    if (n > 1) drv.input_drvs[nth_path(n - 2)] = {"out"}; // without memory: exponential
    all.add(nth_path(n), std::move(drv));
  }
  modulo_cache cache{all.lookup()};
  good(cache.of(nth_path(depth - 1)));
  CHECK(cache.size() == depth);
  cache.clear();
  CHECK(cache.size() == 0);
}

TEST_CASE("impure derivations defer those that use them") {
  drv_store all;
  auto impure = plain("n");
  impure.outputs["out"] = {std::nullopt, "r:sha256", "impure"};
  all.add(nth_path(1), impure);
  auto user = plain("user");
  user.input_drvs[nth_path(1)] = {"out"};
  modulo_cache cache{all.lookup()};
  CHECK(good(cache.masked(user)).deferred);
}
