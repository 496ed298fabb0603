#pragma once

// An event: the place of its last record in a stream, or in a capture.

#include <chrono>
#include <cstdint>
#include <memory>

#include "device.h"

struct CUevent_st {
  unsigned flags = 0;
  CUstream_st* stream = nullptr;  // of the last record; null: never recorded
  std::uint64_t ticket = 0;       // the stream's work up to the record
  std::shared_ptr<std::chrono::steady_clock::time_point>
      time;  // epoch until the record is executed
  std::weak_ptr<loko::emulation::Capture> capture;
  bool captured = false;             // the last record was in a capture
  std::uint64_t capturedBefore = 0;  // nodes of the recording stream before the record
};
