#pragma once

#include "messages/admin.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

/// What operators ask for, as people and scripts read it; times in JSON are seconds. Pure.
namespace coppice::app {

nlohmann::json queued_job_json(const queued_job& job);
nlohmann::json node_json(const node_status& node);
nlohmann::json partial_json(const partial_output& output);

/// Cells of a row: POS, SLOT, PRIO, PATH, WAITING, REQUEST, DERIVATION, WHY.
std::vector<std::string> queued_job_cells(const queued_job& job);
/// NODE, STATE, FREE, FREE IO, MEMORY, DISK, HEARD, SYSTEMS, FEATURES, WHY.
std::vector<std::string> node_cells(const node_status& node);
/// TOKEN, NODE, SIZE, DERIVATION, INHASH, DOING.
std::vector<std::string> partial_cells(const partial_output& output);

/// {drv, state, why, requests, inputs, lock, place, machines, attempts, …}; state is the word of explained_state().
nlohmann::json explanation_json(const explanation& e);

/// In one word where it stands, of all that is known of it: unknown, planning, waits_for_inputs, waits_for_lock,
/// queued, retry, building, fetching, publishing, built, failed, not_attempted, not_wanted.
std::string explained_state(const explanation& e);

/// For people: a sentence, and below it what it rests on.
std::vector<std::string> explanation_lines(const explanation& e, const nix::store_path& asked);

} // namespace coppice::app
