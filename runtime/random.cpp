#include "runtime/random.hpp"

#include "messages/ids.hpp"

#include <sodium.h>

#include <stdexcept>

namespace coppice::rt {

void random_bytes(std::span<unsigned char> out) {
  static const bool ready = sodium_init() >= 0;
  if (!ready) throw std::runtime_error("libsodium cannot be initialised");
  randombytes_buf(out.data(), out.size());
}

std::string random_secret() { return random_id<bytes_id<struct secret_tag, 32>>().to_string(); }

} // namespace coppice::rt
