#pragma once

#include "nix/store_path.hpp"
#include "runtime/process.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace coppice::test {

/// What a builder is told, as build_dir::process() puts it.
struct builder_order {
  std::filesystem::path store; ///< what it sees as the store directory
  std::map<std::string, std::string> env;
};

inline builder_order read_builder_order(const rt::process_spec& spec) {
  const auto words = [](const rt::unique_fd& fd) {
    std::string text(std::size_t{1} << 16, '\0');
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::pread(fd.get(), text.data(), text.size(), 0))));
    std::vector<std::string> out;
    for (std::size_t at = 0; at < text.size(); at = text.find('\0', at) + 1)
      out.emplace_back(text.c_str() + at);
    return out;
  };
  builder_order b;
  const auto arguments = words(*spec.fds.at(0)), order = words(*spec.fds.at(2));
  for (std::size_t i = 2; i < arguments.size(); ++i)
    if (arguments[i] == nix::default_store_dir && arguments[i - 2] == "--bind") b.store = arguments[i - 1];
  for (auto& word : order)
    if (auto equals = word.find('='); equals != word.npos) b.env[word.substr(0, equals)] = word.substr(equals + 1);
  return b;
}

} // namespace coppice::test
