#include "apps/common/text.hpp"
#include "apps/coppice/http.hpp"
#include "apps/coppice/parallel.hpp"
#include "apps/coppice/transfer.hpp"
#include "nix/export.hpp"
#include "store/nar_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace coppice::app {
namespace {

/// The export stream of one source, as `nix-store --export` makes it.
expected<void> export_source(const nix::store_path& path, const std::set<nix::store_path>& references,
                             const std::filesystem::path& real, const store::byte_sink& out) {
  expected<void> sent;
  nix::export_writer writer([&](std::string_view chunk) {
    if (sent) sent = out(chunk);
  });
  writer.begin_path();
  auto dumped = store::dump_path(real, [&](std::string_view chunk) {
    writer.nar(chunk);
    return sent;
  });
  if (!sent) return sent;
  if (!dumped) return dumped;
  writer.end_path({path, references, std::nullopt});
  writer.finish();
  return sent;
}

/// The sources in steps such that each refers to those of earlier steps only, or to ones that are not to be sent.
std::vector<std::vector<nix::store_path>> in_order(const std::vector<nix::store_path>& sources,
                                                   const derivation_closure& closure) {
  std::set<nix::store_path> left(sources.begin(), sources.end());
  std::vector<std::vector<nix::store_path>> steps;
  while (!left.empty()) {
    std::vector<nix::store_path> step;
    for (const auto& source : left) {
      const auto& references = closure.sources.at(source);
      if (std::none_of(references.begin(), references.end(), [&](auto& r) { return r != source && left.contains(r); }))
        step.push_back(source);
    }
    if (step.empty()) step.assign(left.begin(), left.end()); // a cycle: the server says what it thinks of it
    for (const auto& source : step)
      left.erase(source);
    steps.push_back(std::move(step));
  }
  return steps;
}

} // namespace

expected<void> upload(const missing& lacks, const derivation_closure& closure, const std::filesystem::path& objects,
                      blob_id packed_id, const std::string& packed, transfer_progress& progress) {
  progress.done = 0;
  progress.total = lacks.sources.size() + (lacks.closure ? 1 : 0);
  const auto put = [&](const std::string& name, const store::byte_source& body) {
    return with_retries(transfer_tries_max, [&]() -> expected<void> {
      http_session http(progress.stop);
      const auto counted_body = [&](const store::byte_sink& out) {
        return body([&](std::string_view chunk) {
          progress.bytes += chunk.size();
          return out(chunk);
        });
      };
      auto reply = http.put(lacks.upload_url + "/" + percent_encoded(name), lacks.ticket, counted_body);
      const auto tried = fmt::format("cannot upload {} to {}", name, lacks.upload_url);
      if (!reply) return fail(reply.error().code, fmt::format("{}: {}", tried, reply.error().what));
      if (!reply->ok()) return tl::unexpected(refusal_error(*reply, tried));
      ++progress.done;
      return {};
    });
  };
  for (const auto& source : lacks.sources)
    if (!closure.sources.contains(source))
      return fail(ec::bad_message,
                  fmt::format("the farm asks for {}, which is no source of this request", source.to_string()));
  for (const auto& step : in_order(lacks.sources, closure)) {
    auto sent = in_parallel(step.size(), transfers_max, [&](std::size_t i) {
      const auto& source = step[i];
      return put("source/" + source.base_name(), [&](const store::byte_sink& out) {
        return export_source(source, closure.sources.at(source), objects / source.base_name(), out);
      });
    });
    if (!sent) return sent;
  }
  if (!lacks.closure) return {};
  return put("closure/" + packed_id.to_string(), [&](const store::byte_sink& out) { return out(packed); });
}

} // namespace coppice::app
