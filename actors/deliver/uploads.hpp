#pragma once

#include "actors/deliver/http_server.hpp"
#include "actors/deliver/source_upload.hpp"
#include "actors/deliver/tickets.hpp"
#include "messages/ledger.hpp"
#include "nix/signature.hpp"
#include "store/blob_store.hpp"

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace coppice::actors {

/// Takes what clients upload: verified first, then durable, then known to the ledger, and only then answered by 200.
/// Any number of threads at once.
class uploads {
public:
  /// Asks the ledger; blocks for a bounded time.
  using ledger_port = std::function<expected<ledger::any_answer>(ledger::any_transaction)>;

  struct config {
    store::blob_store* blobs;
    std::filesystem::path dir; ///< for closures being uploaded
    const rt::clock* clock;
    const ticket_box* tickets;
    const nix::secret_key* key; ///< null: narinfos are not signed
    source_upload::options source;
    std::uint64_t closure_bytes_max;
    std::uint64_t closure_unpacked_max;
    std::size_t uploads_max;
  };
  /// Empties the directory, or creates it; throws std::runtime_error if it cannot.
  uploads(config c, ledger_port ledger);

  /// Whether the body is worth reading; else answers.
  bool admits(const httplib::Request& req, httplib::Response& res) const;
  void put(const httplib::Request& req, httplib::Response& res, const body_reader& body);

private:
  template <class Answer, class Tx>
  expected<Answer> ask(Tx transaction) const;
  expected<void> put_source(const nix::store_path& path, const body_reader& body);
  expected<void> put_closure(const blob_id& id, const body_reader& body);
  expected<std::optional<path_info>> known(const nix::store_path& path) const;
  expected<void> require_known(const path_info& info) const;
  expected<generation> store_once(const blob_id& blob, std::uint64_t size,
                                  const std::function<std::string(generation)>& key,
                                  const std::function<expected<void>(const std::string& key)>& commit) const;
  expected<void> publish(const path_info& info) const;

  config config_;
  ledger_port ledger_;
  std::atomic<std::size_t> running_{0};
};

} // namespace coppice::actors
