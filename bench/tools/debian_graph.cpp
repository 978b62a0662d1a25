#include "bench/support/debian_graph.hpp"

#include "store/closure.hpp"

#include <CLI/CLI.hpp>

#include <fstream>
#include <iostream>

using namespace coppice;

namespace {

expected<void> run(const bench::graph_options& options, const std::string& store, const std::string& closure) {
  const auto graph = bench::make_debian_graph(options);
  if (!graph) return tl::unexpected(graph.error());
  if (!store.empty())
    if (auto written = bench::write_nix_store(*graph, store); !written) return written;
  if (!closure.empty()) {
    const auto packed = store::pack_closure(graph->derivations);
    if (!packed) return tl::unexpected(packed.error());
    std::ofstream out{closure, std::ios::binary};
    out << *packed;
    if (!out.flush()) return fail(ec::io, "cannot write " + closure);
  }
  std::cout << graph->root.to_string() << '\n';
  return {};
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"Makes derivations with the shape of Debian's build-dependencies and prints the path of the one that "
               "needs all others."};
  bench::graph_options options;
  std::string store, closure;
  app.add_option("--copies", options.copies, "Copies of the graph, with names of their own")->capture_default_str();
  app.add_option("--packages", options.packages_max, "Only that many of the first packages");
  app.add_option("--store", store,
                 "Write the .drv files to DIR/nix/store, and DIR/registration for\n"
                 "nix-store --store 'local?root=DIR' --load-db < DIR/registration")
      ->type_name("DIR");
  app.add_option("--closure", closure, "Write them packed as clients upload them")->type_name("FILE");
  CLI11_PARSE(app, argc, argv);
  if (auto done = run(options, store, closure); !done) {
    std::cerr << "debian_graph: " << done.error().what << '\n';
    return 1;
  }
}
