#pragma once

// Lists of steps as CUDA graphs: a whole forward or backward pass is one launch.
//
// A list runs eagerly the first time it meets a frame, is captured the second time and launched from then
// on. What a graph holds are addresses and shapes; so it is keyed by everything that they follow from, and
// all graphs are dropped when memory moves (Context::generation).

#include <cuda_runtime.h>

#include <cstdint>
#include <list>
#include <utility>

#include "core/backend.h"
#include "cuda/launch.h"

namespace loko::cuda {

class GraphCache {
 public:
  GraphCache() = default;
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;
  ~GraphCache() { clear(); }

  void clear();
  /// Graphs of a list that is about to change, or whose memory another list was given.
  void forget(const Step* steps);

  /// A list in a frame. The weights and the factor of a Gram matrix by their addresses on the device: another
  /// optimizer's may have the same object's address on the host.
  struct Pass {
    const Step* steps;
    const Frame& frame;
    const float* gramWeights;
    const float* factor;
  };

  /// Puts on the stream what enqueue() puts there.
  template <class Enqueue>
  void run(const Pass& pass, std::int64_t generation, cudaStream_t stream, const Enqueue& enqueue) {
    Entry& entry = find(pass, generation);
    if (entry.executable == nullptr) {
      if (!entry.met) {
        entry.met = true;
        enqueue();
        return;
      }
      capture(entry, stream, enqueue);
    }
    check(cudaGraphLaunch(entry.executable, stream), "a recorded pass");
  }

 private:
  struct Key {
    const Step* steps = nullptr;
    int batch = 0, rows = 0, gramRows = 0, factorRows = 0;
    std::int64_t firstRow = 0;
    bool reduce = false, gram = false;
    const float* gramWeights = nullptr;
    const float* factor = nullptr;

    friend bool operator==(const Key& a, const Key& b) {
      return a.steps == b.steps && a.batch == b.batch && a.rows == b.rows &&
             a.gramRows == b.gramRows && a.firstRow == b.firstRow && a.reduce == b.reduce &&
             a.gram == b.gram && a.gramWeights == b.gramWeights && a.factor == b.factor &&
             a.factorRows == b.factorRows;
    }
  };
  struct Entry {
    Key key;
    bool met = false;
    cudaGraphExec_t executable = nullptr;
  };

  Entry& find(const Pass& pass, std::int64_t generation);
  static void destroy(Entry& entry);

  template <class Enqueue>
  void capture(Entry& entry, cudaStream_t stream, const Enqueue& enqueue) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin of a capture");
    cudaGraph_t graph = nullptr;
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "end of a capture");
    const cudaError_t error = cudaGraphInstantiate(&entry.executable, graph, 0);
    cudaGraphDestroy(graph);
    if (error != cudaSuccess) entry.executable = nullptr;
    check(error, "a captured pass");
  }

  std::list<Entry> entries_;  // the most recently used first
  std::int64_t generation_ = 0;
};

}  // namespace loko::cuda
