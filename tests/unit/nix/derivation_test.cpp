#include "fixtures.hpp"
#include "nix/derivation.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

/// Derive(…) with these fields, the others plain.
std::string aterm(const std::string& outputs, const std::string& inputs = "", const std::string& sources = "",
                  const std::string& env = "") {
  return "Derive([" + outputs + "],[" + inputs + "],[" + sources + R"(],"x86_64-linux","/bin/sh",["-c"],[)" + env +
         "])";
}

const std::string some_path = "/nix/store/c015dhfh5l0lp6wxyvdn7bmwhbbr6hr9-x";
const std::string some_drv = "/nix/store/c015dhfh5l0lp6wxyvdn7bmwhbbr6hr9-x.drv";
const std::string out = R"(("out",")" + some_path + R"(","",""))";

std::string reason_for(const std::string& text) {
  return reason(parse_derivation(text, "x"));
}

} // namespace

TEST_CASE("each generated derivation is read as Nix shows it, and written as Nix wrote it") {
  const auto expected_all = read_json(data("generated/expected.json")).at("derivations");
  std::size_t rows = 0;
  for (const auto& [attribute, shown] : expected_all.items()) {
    INFO(attribute);
    const auto at = path(shown.at("drvPath").get<std::string>());
    const auto text = read(data("generated/drv/" + at.base_name()));
    const auto drv = good(parse_derivation(text, at));
    check_like(drv, shown.at("show-derivation"));
    CHECK(print_derivation(drv) == text);
    CHECK(derivation_path(drv) == at);
    CHECK(drv.references() == paths(shown.at("drvReferences")));
    CHECK(hash{sha256(nar_of_file(text))}.to_string() == shown.at("drvNarHash"));
    ++rows;
  }
  CHECK(rows == 54);
}

TEST_CASE("kinds of outputs are told apart") {
  const auto kind = [](const std::string& output) { return good(parse_derivation(aterm(output), "x")).kind(); };
  const std::string digits(64, '0');
  CHECK(kind(out) == output_kind::input_addressed);
  CHECK(kind(R"(("out",")" + some_path + R"(","r:sha256",")" + digits + R"("))") == output_kind::fixed);
  CHECK(kind(R"(("out","","r:sha256",""))") == output_kind::floating);
  CHECK(kind(R"(("out","","",""))") == output_kind::deferred);
  CHECK(kind(R"(("out","","r:sha256","impure"))") == output_kind::impure);
}

TEST_CASE("the declared hash of a fixed output is read") {
  const std::string digits = "894517c9163c896ec31a2adbd33c0681fd5f45b2c0ef08a64c92a03fb97f390f";
  const auto drv =
      good(parse_derivation(aterm(R"(("out",")" + some_path + R"(","r:sha256",")" + digits + R"("))"), "x"));
  CHECK(drv.is_fixed_output());
  CHECK(drv.outputs.at("out").method() == content_method::recursive);
  CHECK(good(drv.outputs.at("out").content_hash()).base16() == digits);
}

TEST_CASE("an output's path has the output's name, unless that is out") {
  CHECK(output_path_name("x", "out") == "x");
  CHECK(output_path_name("x", "dev") == "x-dev");
  CHECK(derivation_name(path(some_drv)) == "x");
}

TEST_CASE("derivations of the Nix project are read as their JSON shows them, and written again byte for byte") {
  std::size_t rows = 0;
  for (const auto* folder : {"from-nix/derivation/ia", "from-nix/derivation/ca", "from-nix/derivation"})
    for (const auto& file : files(folder, ".drv")) {
      const auto beside = std::filesystem::path{file}.replace_extension(".json");
      const auto stem = file.stem().string();
      if (!std::filesystem::exists(beside)) continue;
      INFO(file);
      const auto text = read(file);
      const auto shown = read_json(beside);
      const auto drv = good(parse_derivation(text, stem));
      CHECK(print_derivation(drv) == text);
      auto like = from_json_4(shown);
      like.name = stem;
      if (shown.contains("structuredAttrs")) // the file has the evaluator's text of it
        like.env["__json"] = drv.env.at("__json");
      CHECK(drv == like);
      if (shown.contains("structuredAttrs")) CHECK(json::parse(drv.env.at("__json")) == shown.at("structuredAttrs"));
      ++rows;
    }
  CHECK(rows == 9);
}

TEST_CASE("derivations whose inputs are in no canonical order are read, and written in it") {
  std::vector<std::filesystem::path> shuffled = files("from-harmonia/aterm_parse", ".drv");
  shuffled.push_back(data("from-nix/derivation/hello.drv"));
  shuffled.push_back(data("from-nix/derivation/firefox.drv"));
  REQUIRE(shuffled.size() == 5);
  for (const auto& file : shuffled) {
    INFO(file);
    const auto text = read(file);
    const auto drv = good(parse_derivation(text, file.stem().string()));
    const auto canonical = print_derivation(drv);
    CHECK(canonical != text);
    CHECK(canonical.size() == text.size()); // the same pieces in another order
    CHECK(good(parse_derivation(canonical, drv.name)) == drv);
  }
}

TEST_CASE("derivations of tvix are read, written byte for byte, and found at their paths") {
  std::size_t rows = 0, shown_rows = 0;
  for (const auto& file : files("from-tvix/derivation_tests/ok", ".drv")) {
    INFO(file);
    const auto at = good(store_path::from_base_name(file.filename().string()));
    const auto text = read(file);
    const auto drv = good(parse_derivation(text, at));
    CHECK(print_derivation(drv) == text);
    CHECK(derivation_path(drv) == at);
    ++rows;
    if (!std::filesystem::exists(file.string() + ".json")) continue; // JSON cannot hold what is not UTF-8
    check_like(drv, read_json(file.string() + ".json"));
    ++shown_rows;
  }
  CHECK(rows == 10);
  CHECK(shown_rows == 8);
}

TEST_CASE("text that is not UTF-8 stays as it is") {
  const drv_store all{"from-tvix/derivation_tests/ok"};
  CHECK(all.at(path("/nix/store/x6p0hg79i3wg0kkv7699935f7rrj9jf3-latin1.drv")).env.at("chars") == "\xc5\xc4\xd6");
}

TEST_CASE("escapes are read and written") {
  derivation drv;
  drv.name = "x";
  drv.env["k"] = std::string{"\"\\\n\r\t$\x01\0é", 10};
  const auto text = print_derivation(drv);
  CHECK(text.find(std::string{R"("\"\\\n\r\t$)"} + '\x01' + '\0') != std::string::npos);
  CHECK(good(parse_derivation(text, "x")) == drv);
  CHECK(good(parse_derivation(aterm(out, "", "", R"(("k","\a\$"))"), "x")).env.at("k") == "a$");
}

TEST_CASE("derivations of a form that is not supported are refused with a reason") {
  const auto refused = [](const std::string& name) {
    return reason(parse_derivation(read(data("from-nix/derivation/" + name)), "x"));
  };
  CHECK(refused("bad-version.drv").find("DrvWithVersion") != std::string::npos);
  CHECK(refused("dyn-dep-derivation.drv").find("DrvWithVersion") != std::string::npos);
  CHECK(refused("bad-old-version-dyn-deps.drv").find("expected '['") != std::string::npos);
}

TEST_CASE("what is listed twice is refused") {
  CHECK(reason(parse_derivation(read(data("from-tvix/derivation_tests/duplicate.drv")), "foo"))
            .find("'name' is set twice") != std::string::npos);
  const auto input = R"((")" + some_drv + R"(",["out"]))", source = '"' + some_path + '"';
  CHECK(reason_for(aterm(out + "," + out)).find("twice") != std::string::npos);
  CHECK(reason_for(aterm(out, input + "," + input)).find("twice") != std::string::npos);
  CHECK(reason_for(aterm(out, R"((")" + some_drv + R"(",["out","out"]))")).find("twice") != std::string::npos);
  CHECK(reason_for(aterm(out, "", source + "," + source)).find("twice") != std::string::npos);
}

TEST_CASE("outputs that make no sense are refused") {
  const std::string digits(64, '0'), with_path = R"(("out",")" + some_path + R"(",)";
  for (const auto& output : std::vector<std::string>{
           with_path + R"("sha256",""))", with_path + R"("","00"))", with_path + R"("sha256","00"))",
           with_path + R"("sha257",")" + digits + R"("))", with_path + R"("sha256",")" + std::string(64, 'A') + R"("))",
           with_path + R"("r:sha256","impure"))", R"(("out","","sha256",")" + digits + R"("))", R"(("","","",""))",
           R"(("o/t","","",""))", R"(("out","/etc/passwd","",""))",
           R"(("dev",")" + some_path + R"(","sha256",")" + digits + R"("))", out + R"(,("dev","","",""))"})
    CHECK_FALSE(reason_for(aterm(output)).empty());
}

TEST_CASE("an input that is no derivation, and a name that makes no path, are refused") {
  CHECK(reason_for(aterm(out, R"((")" + some_path + R"(",["out"]))")).find("no derivation") != std::string::npos);
  CHECK_FALSE(parse_derivation(aterm(out), "").has_value());
  CHECK_FALSE(parse_derivation(aterm(out), "a/b").has_value());
  CHECK_FALSE(parse_derivation(aterm(out), std::string(208, 'x')).has_value());
  CHECK_FALSE(parse_derivation(aterm(out), path(some_path)).has_value());
}

TEST_CASE("a derivation cut short anywhere, or with a byte too many, is refused at a stated byte") {
  const auto text = read(data("generated/drv/fq59vrcrs4incfmraad71nqalmml7y95-escapes.drv"));
  REQUIRE(parse_derivation(text, "escapes").has_value());
  for (std::size_t size = 0; size < text.size(); ++size) {
    const auto why = reason(parse_derivation(text.substr(0, size), "escapes"));
    CHECK(why.find("byte") != std::string::npos);
  }
  CHECK(reason(parse_derivation(text + "\n", "escapes")).find("too many") != std::string::npos);
}

TEST_CASE("a derivation with any byte changed is refused or read as something else") {
  const auto text = read(data("generated/drv/9wfjklzy9nqsnscmp1kl17sy5a32h67f-multi-out.drv"));
  const auto drv = good(parse_derivation(text, "multi-out"));
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto changed = text;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    const auto parsed = parse_derivation(changed, "multi-out");
    CHECK_FALSE((parsed && *parsed == drv));
  }
}

TEST_CASE("a name is told from its version as Nix does it") {
  const auto is = [](std::string_view name) { return std::string(name_without_version(name)); };
  CHECK(is("zlib-1.3.1") == "zlib");
  CHECK(is("zlib-1.3.1-dev") == "zlib");
  CHECK(is("python3.12-requests") == "python3.12-requests");
  CHECK(is("gcc-wrapper-13.2") == "gcc-wrapper");
  CHECK(is("adwaita-icon-theme") == "adwaita-icon-theme");
  CHECK(is("zlib.o") == "zlib.o");
  CHECK(is("x--1") == "x");
  CHECK(is("x-") == "x-");
  CHECK(is("-1") == "-1");
  CHECK(is("") == "");
}
