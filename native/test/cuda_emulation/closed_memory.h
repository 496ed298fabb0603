#pragma once

// A kernel that may start before the one ahead of it has ended must not touch memory until it has waited. To see
// whether it does, its pages are closed to everybody: an access is noted, opens them, and goes on.

#include "device.h"

namespace loko::emulation {

/// Closes all device memory until openMemory(), or the end of this object.
class ClosedMemory {
 public:
  explicit ClosedMemory(const Device& device);
  ~ClosedMemory();
  ClosedMemory(const ClosedMemory&) = delete;
  ClosedMemory& operator=(const ClosedMemory&) = delete;

  /// The allocation that was touched while it was closed, null if none was.
  const Allocation* touched() const;

 private:
  const Device& device_;
};

void openMemory();

}  // namespace loko::emulation
