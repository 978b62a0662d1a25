#include "fixtures.hpp"
#include "nix/narinfo.hpp"
#include "nix/signature.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

std::vector<std::string> samples() {
  std::vector<std::string> all{{}};
  const auto text = read(data("from-tvix/narinfo-sample.txt"));
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at) + 1;
    REQUIRE(end != 0);
    if (end - at == 1)
      all.emplace_back();
    else
      all.back() += text.substr(at, end - at);
    at = end;
  }
  if (all.back().empty()) all.pop_back();
  return all;
}

const std::string plain = "StorePath: /nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a\n"
                          "URL: nar/x.nar\n"
                          "NarHash: sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s\n"
                          "NarSize: 120\n";

std::string without(const std::string& key) {
  auto text = plain;
  const auto at = text.find(key + ": ");
  return text.erase(at, text.find('\n', at) + 1 - at);
}

std::string reason_for(const std::string& text) {
  return reason(parse_narinfo(text));
}

} // namespace

TEST_CASE("all narinfos of the public cache are read, verified, written and read again") {
  const auto key = good(public_key::parse("cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="));
  const auto all = samples();
  CHECK(all.size() == 162);
  std::size_t verified = 0, content_addressed = 0;
  for (const auto& text : all) {
    INFO(text);
    const auto info = good(parse_narinfo(text));
    for (const auto& sig : info.sigs)
      CHECK(verify(info.fingerprint(), sig, key));
    verified += info.sigs.size();
    CHECK(verify_any(info.fingerprint(), info.sigs, std::vector{key}));
    if (!info.ca.empty()) {
      CHECK(good(content_address_matches(info)));
      ++content_addressed;
    }
    const auto printed = print_narinfo(info);
    CHECK(printed == text);
    const auto again = good(parse_narinfo(printed));
    CHECK(again == info);
    CHECK(again.fingerprint() == info.fingerprint());
  }
  CHECK(verified == 162);
  CHECK(content_addressed == 8);
}

TEST_CASE("a changed narinfo does not verify") {
  const auto key = good(public_key::parse("cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="));
  const auto info = good(parse_narinfo(samples().front()));
  REQUIRE(verify_any(info.fingerprint(), info.sigs, std::vector{key}));
  auto changed = info;
  changed.nar_size += 1;
  CHECK_FALSE(verify_any(changed.fingerprint(), changed.sigs, std::vector{key}));
  changed = info;
  changed.references.erase(changed.references.begin());
  CHECK_FALSE(verify_any(changed.fingerprint(), changed.sigs, std::vector{key}));
  changed = info;
  changed.nar_hash = hash{sha256("")};
  CHECK_FALSE(verify_any(changed.fingerprint(), changed.sigs, std::vector{key}));
}

TEST_CASE("a narinfo is written exactly as Nix writes it, with the space after References") {
  auto info = good(parse_narinfo(plain));
  info.compression = "zstd";
  info.file_hash = hash{sha256("")};
  info.file_size = 7;
  info.sigs = {"a:AA==", "b:AA=="};
  info.system = "x86_64-linux";
  info.deriver = path("/nix/store/bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-a.drv");
  info.ca = "fixed:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
  CHECK(print_narinfo(info) == "StorePath: /nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a\n"
                               "URL: nar/x.nar\n"
                               "Compression: zstd\n"
                               "FileHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n"
                               "FileSize: 7\n"
                               "NarHash: sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s\n"
                               "NarSize: 120\n"
                               "References: \n"
                               "Deriver: bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-a.drv\n"
                               "System: x86_64-linux\n"
                               "Sig: a:AA==\n"
                               "Sig: b:AA==\n"
                               "CA: fixed:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s\n");
}

TEST_CASE("a narinfo with the least fields has Nix's defaults") {
  const auto info = good(parse_narinfo(plain));
  CHECK(info.compression == "bzip2");
  CHECK_FALSE(info.file_hash.has_value());
  CHECK(info.references.empty());
  CHECK_FALSE(info.deriver.has_value());
  CHECK(info.sigs.empty());
}

TEST_CASE("order, unknown fields and other encodings of the hash do not matter") {
  const auto info = good(parse_narinfo(plain));
  const auto digest = info.nar_hash;
  const auto with_hash = [](const std::string& form) { return "NarHash: " + form + "\n" + without("NarHash"); };
  CHECK(good(parse_narinfo(with_hash(digest.sri()))) == info);
  CHECK(good(parse_narinfo(with_hash("sha256:" + digest.base16()))) == info);
  CHECK(good(parse_narinfo(with_hash("sha256:" + digest.base64()))) == info);
  CHECK(good(parse_narinfo("Future: thing\n" + plain + "Deriver: unknown-deriver\n")) == info);
  CHECK(good(parse_narinfo(plain + "References: \n")) == info);
}

TEST_CASE("a fingerprint has the hash in base 32 and sorted full paths") {
  auto info = good(
      parse_narinfo(plain + "References: bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-b 9wfjklzy9nqsnscmp1kl17sy5a32h67f-a\n"));
  CHECK(info.fingerprint() == "1;/nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a;"
                              "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s;120;"
                              "/nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a,"
                              "/nix/store/bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-b");
  info.references.clear();
  CHECK(info.fingerprint().ends_with(";120;"));
}

TEST_CASE("a corrupt narinfo is refused with its reason") {
  for (const auto* key : {"StorePath", "URL", "NarHash", "NarSize"})
    CHECK(reason_for(without(key)).find(key) != std::string::npos);
  CHECK(reason_for("").find("missing") != std::string::npos);
  CHECK(reason_for(plain.substr(0, plain.size() - 1)).find("last line") != std::string::npos);
  CHECK(reason_for(plain + "\n").find("no ':'") != std::string::npos);
  CHECK(reason_for(plain + "References:\n").find("no space") != std::string::npos);
  CHECK(reason_for(plain + "System: x\r\n").find("carriage return") != std::string::npos);
  CHECK(reason_for(plain + "NarSize: 120\n").find("twice") != std::string::npos);
  CHECK_FALSE(reason_for(plain + "References: x\n").empty());
  CHECK_FALSE(reason_for(plain + "Deriver: x\n").empty());
  CHECK_FALSE(reason_for(plain + "FileHash: x\n").empty());
  CHECK_FALSE(reason_for(plain + "FileSize: -1\n").empty());
  CHECK_FALSE(reason_for(plain + "CA: nonsense\n").empty());
  CHECK_FALSE(reason_for(without("NarSize") + "NarSize: 0\n").empty());
  CHECK_FALSE(reason_for(without("NarSize") + "NarSize: 1x\n").empty());
  CHECK_FALSE(reason_for(without("NarHash") + "NarHash: md5:900150983cd24fb0d6963f7d28e17f72\n").empty());
}

TEST_CASE("content addresses of the oracle's outputs match their paths") {
  std::size_t rows = 0;
  const auto all = read_json(data("generated/expected.json")).at("derivations");
  for (const auto& [attribute, row] : all.items()) {
    const auto outputs = row.value("built", json::object());
    for (const auto& [output, built] : outputs.items()) {
      if (!built.contains("ca")) continue;
      INFO(attribute << " " << output);
      narinfo info;
      info.path = path(built.at("path").get<std::string>());
      info.references = paths(built.at("references"));
      info.ca = built.at("ca");
      CHECK(good(content_address_matches(info)));
      info.references.insert(path("/nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a"));
      CHECK_FALSE(good(content_address_matches(info)));
      ++rows;
    }
  }
  CHECK(rows == 15);
}
