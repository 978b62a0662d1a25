#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

#include <algorithm>
#include <map>
#include <memory>

namespace coppice::test {

/// LEDGER as far as it knows paths. What is said to it of locks and blobs it believes.
class path_ledger {
public:
  using interface = ledger_actor;
  static constexpr const char* name = "ledger";
  using rows = std::shared_ptr<std::map<nix::store_path, path_info>>;

  using holders = std::shared_ptr<std::vector<ledger::path_holder>>;

  path_ledger(rt::self<interface>*, rows known, holders hold = std::make_shared<std::vector<ledger::path_holder>>())
      : known_(std::move(known)), holders_(std::move(hold)) {}
  interface::behavior_type make_behavior() {
    return {
        [this](atom::transact_atom, const ledger::transaction& t) -> ledger::answer {
          if (auto* read = std::get_if<ledger::read_paths>(&t.body)) {
            ledger::path_infos found;
            for (auto& path : read->paths)
              if (known_->contains(path)) found.rows.push_back(known_->at(path));
            for (auto& h : *holders_)
              if (read->holders && std::count(read->paths.begin(), read->paths.end(), h.path))
                found.holders.push_back(h);
            return {found};
          }
          if (std::get_if<ledger::stat_blob>(&t.body)) return {ledger::blob_state{{1}, false}};
          if (auto* lost = std::get_if<ledger::gone>(&t.body))
            std::erase_if(*known_, [&](auto& row) { return row.second.blob == lost->blob; });
          return {ledger::done{}};
        },
        [](atom::done_atom) {},
        [](atom::tick_atom) {},
    };
  }

private:
  rows known_;
  holders holders_;
};

} // namespace coppice::test
