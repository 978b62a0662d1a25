#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace coppice::rt {

/// Fills with bytes nobody can guess.
void random_bytes(std::span<unsigned char> out);

/// A fresh id: any of the bytes_id types.
template <class Id>
Id random_id() {
  Id id;
  random_bytes(id.bytes);
  return id;
}

/// A secret of 256 bits in hex.
std::string random_secret();

} // namespace coppice::rt
