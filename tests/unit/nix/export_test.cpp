#include "fixtures.hpp"
#include "nix/export.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

class collecting final : public export_visitor {
public:
  expected<void> begin_path() override {
    nars.emplace_back();
    return {};
  }
  expected<void> nar(std::string_view chunk) override {
    nars.back() += chunk;
    return {};
  }
  expected<void> end_path(const export_info& info) override {
    infos.push_back(info);
    return {};
  }

  std::vector<std::string> nars;
  std::vector<export_info> infos;
};

export_info first() {
  return {path("/nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a"), {}, std::nullopt};
}

export_info second() {
  return {
      path("/nix/store/bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-b"),
      {path("/nix/store/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a"), path("/nix/store/bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-b")},
      path("/nix/store/bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx-b.drv")};
}

std::string two_paths() {
  std::string out;
  export_writer to{[&](std::string_view bytes) { out += bytes; }};
  to.begin_path();
  to.nar(nar_of_file("first"));
  to.end_path(first());
  to.begin_path();
  to.nar(read(data("generated/nar/tree.nar")));
  to.end_path(second());
  to.finish();
  return out;
}

std::string reason_for(std::string_view stream, const export_limits& limits = {}) {
  collecting visitor;
  export_reader reader{visitor, default_store_dir, limits};
  return reason(reader.feed(stream).and_then([&] { return reader.finish(); }));
}

} // namespace

TEST_CASE("an export stream of no path is eight zero bytes") {
  std::string out;
  export_writer{[&](std::string_view bytes) { out += bytes; }}.finish();
  CHECK(out == std::string(8, '\0'));
}

TEST_CASE("what is exported is read back, in chunks of any size") {
  const auto stream = two_paths();
  for (const std::size_t chunk_bytes : {1, 5, 8, 100, 100'000}) {
    INFO("chunks of " << chunk_bytes);
    collecting visitor;
    export_reader reader{visitor};
    for (std::size_t at = 0; at < stream.size(); at += chunk_bytes)
      good(reader.feed(std::string_view{stream}.substr(at, chunk_bytes)));
    good(reader.finish());
    CHECK(visitor.nars == std::vector<std::string>{nar_of_file("first"), read(data("generated/nar/tree.nar"))});
    CHECK(visitor.infos == std::vector<export_info>{first(), second()});
  }
}

TEST_CASE("a stream that Nix exported is read, and written again byte for byte") {
  const auto stream = read(data("generated/export.bin"));
  collecting visitor;
  export_reader reader{visitor};
  good(reader.feed(stream));
  good(reader.finish());

  const auto source = path("/nix/store/rcl5i7k4xwa7zkij8lg4r4yxxgixdwzv-t.txt");
  const auto output = path("/nix/store/b7jb7hgkxan4y26fd6vmcxcjq2d8y5ax-exp");
  const auto drv = path("/nix/store/r5xi2f3k4qcnfzkx2f4yglca3bmbcxnh-exp.drv");
  CHECK(visitor.infos == std::vector<export_info>{{source, {}, std::nullopt},
                                                  {output, {source, output}, drv},
                                                  {drv, {source}, std::nullopt}});

  std::string again;
  export_writer to{[&](std::string_view bytes) { again += bytes; }};
  for (std::size_t i = 0; i < visitor.infos.size(); ++i) {
    to.begin_path();
    to.nar(visitor.nars[i]);
    to.end_path(visitor.infos[i]);
  }
  to.finish();
  CHECK(again == stream);
}

TEST_CASE("an export stream cut short anywhere, or with a byte behind it, is refused") {
  const auto stream = two_paths();
  for (std::size_t size = 0; size < stream.size(); ++size)
    CHECK_FALSE(reason_for(stream.substr(0, size)).empty());
  CHECK(reason_for(stream + '\0').find("after the end") != std::string::npos);
}

TEST_CASE("an export stream with a wrong marker, magic, path or trailer is refused") {
  const auto changed = [](std::size_t at, char to) {
    auto stream = two_paths();
    stream[at] = to;
    return reason_for(stream);
  };
  const auto magic = 8 + nar_of_file("first").size();
  CHECK(changed(0, 2).find("marker") != std::string::npos);
  CHECK(changed(8, 2).find("malformed NAR") != std::string::npos);
  CHECK(changed(magic, 0).find("trailer") != std::string::npos);
  CHECK(changed(magic + 16, 'x').find("not in /nix/store") != std::string::npos);
  CHECK(changed(two_paths().size() - 16, 1).find("signature") != std::string::npos); // before the end marker
  const auto references = two_paths().find("-a", magic) + 8;
  CHECK_FALSE(changed(references, 1).empty());
}

TEST_CASE("more references than allowed are refused before they are read") {
  CHECK(reason_for(two_paths(), {.nar = {}, .references_max = 1}).find("more than 1") != std::string::npos);
}
