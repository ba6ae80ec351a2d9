// Drives one Verilated machine: clock, AXI-Lite master, DRAM model, protocol checks, trace.
//
// The DRAM model is the one of docs/microarchitecture.md, section "DRAM model"; `covta.sim.dram` holds its
// parameters. Python loads this file, compiled with the model, as a shared library (rtl_model.py) and calls
// the `bench_*` functions at the end.
//
// Build-time constants: BENCH_BUS_BYTES, BENCH_MAX_BURST_BEATS, BENCH_MAX_OUTSTANDING, BENCH_ONE_EDGE and, in
// unit_clocks.h, BENCH_UNIT_CLOCKS(X): X(name) for each clock port `clk_name`, in the order of the bits of
// `clock_request`; without any, nothing. BENCH_LINGER_CYCLES: edges that a unit gets after its last request.

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "Vvta.h"
#include "unit_clocks.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

double sc_time_stamp() { return 0; }

namespace {

constexpr uint64_t kBusBytes = BENCH_BUS_BYTES;
constexpr unsigned kMaxBurstBeats = BENCH_MAX_BURST_BEATS;
constexpr unsigned kMaxOutstanding = BENCH_MAX_OUTSTANDING;
constexpr uint64_t kPageBytes = 4096;
constexpr int64_t kCreditOne = 65536;
constexpr uint64_t kAllStrobes = kBusBytes == 64 ? ~uint64_t{0} : (uint64_t{1} << kBusBytes) - 1;
constexpr unsigned kOkay = 0, kDecerr = 3;
constexpr unsigned kResetCycles = 4;
constexpr unsigned kLiteTimeoutCycles = 1000;

enum Channel : uint64_t { kAr, kR, kAw, kW, kB };

constexpr unsigned log2_of(uint64_t value) { return value <= 1 ? 0 : 1 + log2_of(value / 2); }

uint64_t splitmix64(uint64_t z) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

struct DramParameters {
    uint64_t latency_cycles = 32;
    uint64_t max_outstanding = 16;
    int64_t credit_per_cycle = kCreditOne;
    uint64_t stall_threshold = 0;  // of 65536
    uint64_t seed = 0;

    bool stall(Channel channel, uint64_t t) const {
        if (!stall_threshold) return false;
        const uint64_t z = seed * 0x9E3779B97F4A7C15u + channel * 0xD1B54A32D192ED03u + t;
        return (splitmix64(z) >> 48) < stall_threshold;
    }
};

// Whole beats of memory; `data` belongs to the caller.
struct Extent {
    uint64_t base, end;
    uint8_t* data;
};

// Extents sorted by base, disjoint, aligned to beats.
class Memory {
   public:
    std::vector<Extent> extents;

    // The bytes of a beat, or null where no region is.
    uint8_t* beat(uint64_t addr) {
        if (last_ < extents.size() && inside(extents[last_], addr)) return at(extents[last_], addr);
        size_t low = 0, high = extents.size();
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (extents[middle].end <= addr) low = middle + 1;
            else high = middle;
        }
        if (low == extents.size() || !inside(extents[low], addr)) return nullptr;
        last_ = low;
        return at(extents[low], addr);
    }

   private:
    static bool inside(const Extent& e, uint64_t addr) { return addr >= e.base && addr < e.end; }
    static uint8_t* at(const Extent& e, uint64_t addr) { return e.data + (addr - e.base); }
    size_t last_ = 0;
};

// A first-in first-out queue that grows as needed and does not allocate once it has.
template <typename T>
class Queue {
   public:
    bool empty() const { return head_ == tail_; }
    size_t size() const { return tail_ - head_; }
    T& front() { return items_[head_ & mask_]; }
    T& operator[](size_t index) { return items_[(head_ + index) & mask_]; }
    void pop() { ++head_; }
    void clear() { head_ = tail_ = 0; }
    void push(const T& item) {
        if (size() == items_.size()) grow();
        items_[tail_++ & mask_] = item;
    }

   private:
    void grow() {
        std::vector<T> bigger(items_.size() * 2);
        const size_t count = size();
        for (size_t i = 0; i < count; ++i) bigger[i] = (*this)[i];
        items_.swap(bigger);
        mask_ = items_.size() - 1;
        head_ = 0;
        tail_ = count;
    }
    std::vector<T> items_ = std::vector<T>(64);
    size_t mask_ = 63, head_ = 0, tail_ = 0;
};

struct ReadBurst {
    uint64_t addr, due;
    unsigned beats;
};

struct WriteBurst {
    uint64_t addr;
    unsigned beats_left;
    unsigned resp;
};

struct Response {
    uint64_t due;
    unsigned resp;
};

// What must hold still while a channel's valid waits for its ready.
struct Address {
    uint64_t addr;
    unsigned len;
    bool operator!=(const Address& other) const { return addr != other.addr || len != other.len; }
};

struct Held {
    bool waiting = false;
    Address address{};
};

class Bench {
   public:
    Bench() : top(new Vvta(&context, "vta")) {
        context.timeunit(-9);
        context.timeprecision(-9);
    }

    ~Bench() {
#if VM_TRACE
        if (trace) trace->close();
#endif
        top->final();
    }

    bool open_trace(const char* path) {
#if VM_TRACE
        context.traceEverOn(true);
        trace.reset(new VerilatedVcdC);
        top->trace(trace.get(), 99);
        trace->open(path);
        return trace->isOpen();
#else
        (void)path;
        return false;
#endif
    }

    void reset() {
        set(top->rst, 1);
        cycle();
        in_reset = true;
        for (unsigned i = 1; i < kResetCycles; ++i) cycle();
        in_reset = false;
        set(top->rst, 0);
        cycle();
    }

    // The next rise of `running` is t = 0; the bus must be quiet.
    void arm() {
        if (!reads.empty() || !writes.empty() || !responses.empty())
            violation("a launch while bursts are in flight");
        live = false;
        t = 0;
        running_cycles = 0;
        read_credit = write_credit = kCreditOne;
    }

    // One clock period: drive, settle, look, clock edge, update the model.
    void cycle() {
        drive();
#if BENCH_ONE_EDGE
        // Every change of the clock is an edge; what no input changed has settled at the last one.
        if (unsettled) top->eval();
        unsettled = false;
        sample();
        top->clk = !top->clk;
        toggle_unit_clocks();
        top->eval();
#else
        top->clk = 0;
        clear_unit_clocks();
        top->eval();
        dump();
        sample();
        top->clk = 1;
        toggle_unit_clocks();
        top->eval();
        dump();
#endif
        if (live) {
            ++t;
        } else if (top->running) {
            live = true;
        }
    }

    // Returns: 0 the run ended, 1 limit reached, 2 it did not start, 3 violation.
    int run(uint64_t max_cycles, uint64_t start_cycles) {
        uint64_t waited = 0;
        while (!live) {
            if (waited++ == start_cycles) return 2;
            cycle();
            if (failed()) return 3;
        }
        while (top->running) {
            if (running_cycles >= max_cycles) return 1;
            cycle();
            if (failed()) return 3;
        }
        return 0;
    }

    // AXI-Lite: RRESP / BRESP, or -1 if nothing answers.
    int lite_write(uint32_t addr, uint32_t data) {
        set(top->s_axi_awaddr, addr);
        set(top->s_axi_wdata, data);
        set(top->s_axi_wstrb, 0xF);
        set(top->s_axi_awvalid, 1);
        set(top->s_axi_wvalid, 1);
        set(top->s_axi_bready, 1);
        int resp = -1;
        for (unsigned i = 0; i < kLiteTimeoutCycles && resp < 0; ++i) {
            cycle();
            if (lite.awready) set(top->s_axi_awvalid, 0);
            if (lite.wready) set(top->s_axi_wvalid, 0);
            if (lite.bvalid) resp = lite.bresp;
        }
        set(top->s_axi_awvalid, 0);
        set(top->s_axi_wvalid, 0);
        set(top->s_axi_bready, 0);
        return resp;
    }

    int lite_read(uint32_t addr, uint32_t* data) {
        set(top->s_axi_araddr, addr);
        set(top->s_axi_arvalid, 1);
        set(top->s_axi_rready, 1);
        int resp = -1;
        for (unsigned i = 0; i < kLiteTimeoutCycles && resp < 0; ++i) {
            cycle();
            if (lite.arready) set(top->s_axi_arvalid, 0);
            if (lite.rvalid) {
                resp = lite.rresp;
                *data = lite.rdata;
            }
        }
        set(top->s_axi_arvalid, 0);
        set(top->s_axi_rready, 0);
        return resp;
    }

    bool failed() const { return !message.empty(); }

    VerilatedContext context;
    std::unique_ptr<Vvta> top;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> trace;
#endif
    DramParameters dram;
    Memory memory;
    std::string message;
    uint64_t t = 0;
    uint64_t running_cycles = 0;
    uint64_t clock_cycles = 0;

   private:
    // Drive an input.
    template <typename Port, typename Value>
    void set(Port& port, Value value) {
        const Port driven = static_cast<Port>(value);
        unsettled |= port != driven;
        port = driven;
    }

    void dump() {
#if VM_TRACE
        if (trace) trace->dump(context.time());
#endif
        context.timeInc(1);
    }

    // Edges for the units that want one, or did within the last BENCH_LINGER_CYCLES cycles.
    void toggle_unit_clocks() {
#ifdef BENCH_UNIT_CLOCKS
        const uint64_t requests = top->rst ? ~uint64_t{0} : top->clock_request;
        unsigned unit = 0;
#define BENCH_TOGGLE(name)                                                        \
    if (requests >> unit & 1) awake_until[unit] = clock_cycles + BENCH_LINGER_CYCLES; \
    if (clock_cycles <= awake_until[unit++]) top->clk_##name = !top->clk_##name;
        BENCH_UNIT_CLOCKS(BENCH_TOGGLE)
#undef BENCH_TOGGLE
#endif
    }

    void clear_unit_clocks() {
#ifdef BENCH_UNIT_CLOCKS
#define BENCH_CLEAR(name) top->clk_##name = 0;
        BENCH_UNIT_CLOCKS(BENCH_CLEAR)
#undef BENCH_CLEAR
#endif
    }

    // Everything here depends on the model's state alone, so one settling evaluation is enough.
    void drive() {
        ar_ready = live && reads.size() < dram.max_outstanding && !dram.stall(kAr, t);
        aw_ready = live && writes_outstanding < dram.max_outstanding && !dram.stall(kAw, t);
        set(top->m_axi_arready, ar_ready);
        set(top->m_axi_awready, aw_ready);

        if (!r_valid && !reads.empty() && t >= reads.front().due && read_credit >= kCreditOne &&
            !dram.stall(kR, t)) {
            present_read();
        }
        set(top->m_axi_rvalid, r_valid);

        w_ready = !writes.empty() && write_credit >= kCreditOne && !dram.stall(kW, t);
        set(top->m_axi_wready, w_ready);

        if (!b_valid && !responses.empty() && t >= responses.front().due && !dram.stall(kB, t)) {
            b_valid = true;
            set(top->m_axi_bresp, responses.front().resp);
        }
        set(top->m_axi_bvalid, b_valid);
    }

    void present_read() {
        ReadBurst& burst = reads.front();
        uint8_t* bytes = memory.beat(burst.addr);
        if (bytes) {
            std::memcpy(&top->m_axi_rdata, bytes, kBusBytes);
        } else {
            std::memset(&top->m_axi_rdata, 0, kBusBytes);
        }
        top->m_axi_rresp = bytes ? kOkay : kDecerr;
        top->m_axi_rlast = burst.beats == 1;
        unsettled = true;
        r_valid = true;
        read_credit -= kCreditOne;
    }

    // The outputs are settled: take the handshakes of this cycle.
    void sample() {
        ++clock_cycles;
        running_cycles += top->running;
        if (in_reset &&
            (top->m_axi_arvalid || top->m_axi_awvalid || top->m_axi_wvalid || top->s_axi_bvalid ||
             top->s_axi_rvalid))
            violation("a valid is high during reset");
        take_ar();
        take_r();
        take_w();
        take_aw();
        take_b();
        lite.awready = top->s_axi_awvalid && top->s_axi_awready;
        lite.wready = top->s_axi_wvalid && top->s_axi_wready;
        lite.arready = top->s_axi_arvalid && top->s_axi_arready;
        lite.bvalid = top->s_axi_bvalid;
        lite.bresp = top->s_axi_bresp;
        lite.rvalid = top->s_axi_rvalid;
        lite.rresp = top->s_axi_rresp;
        lite.rdata = top->s_axi_rdata;
        read_credit = replenish(read_credit);
        write_credit = replenish(write_credit);
    }

    int64_t replenish(int64_t credit) const {
        if (!live) return credit;
        credit += dram.credit_per_cycle;
        return credit > kCreditOne ? kCreditOne : credit;
    }

    void take_ar() {
        const Address address{top->m_axi_araddr, top->m_axi_arlen};
        const bool valid = top->m_axi_arvalid;
        check_held("AR", valid, address, ar_held);
        if (valid) {
            if (!ar_held.waiting)
                check_burst("AR", address, top->m_axi_arsize, top->m_axi_arburst);
            if (ar_ready) {
                reads.push({address.addr, t + dram.latency_cycles, address.len + 1u});
                if (reads.size() > kMaxOutstanding)
                    violation("%zu read bursts outstanding, %u allowed", reads.size(),
                              kMaxOutstanding);
            }
        }
        ar_held = {valid && !ar_ready, address};
    }

    void take_r() {
        if (!r_valid || !top->m_axi_rready) return;
        r_valid = false;
        ReadBurst& burst = reads.front();
        burst.addr += kBusBytes;
        if (--burst.beats == 0) reads.pop();
    }

    void take_aw() {
        const Address address{top->m_axi_awaddr, top->m_axi_awlen};
        const bool valid = top->m_axi_awvalid;
        check_held("AW", valid, address, aw_held);
        if (valid) {
            if (!aw_held.waiting)
                check_burst("AW", address, top->m_axi_awsize, top->m_axi_awburst);
            if (aw_ready) {
                writes.push({address.addr, address.len + 1u, kOkay});
                ++writes_outstanding;
                if (writes_outstanding > kMaxOutstanding)
                    violation("%llu write bursts outstanding, %u allowed",
                              static_cast<unsigned long long>(writes_outstanding), kMaxOutstanding);
            }
        }
        aw_held = {valid && !aw_ready, address};
    }

    void take_w() {
        const bool valid = top->m_axi_wvalid;
        if (w_waiting) {
            if (!valid) violation("W: valid fell before ready");
            else if (top->m_axi_wlast != w_last || std::memcmp(w_data, &top->m_axi_wdata, kBusBytes))
                violation("W: payload changed before ready");
        }
        w_waiting = valid && !w_ready;
        if (w_waiting) {
            std::memcpy(w_data, &top->m_axi_wdata, kBusBytes);
            w_last = top->m_axi_wlast;
        }
        if (!valid || !w_ready) return;
        write_credit -= kCreditOne;
        WriteBurst& burst = writes.front();
        if (static_cast<uint64_t>(top->m_axi_wstrb) != kAllStrobes)
            violation("W: a strobe is not set at address 0x%llx",
                      static_cast<unsigned long long>(burst.addr));
        if (top->m_axi_wlast != (burst.beats_left == 1))
            violation("W: WLAST is %d with %u beats left at address 0x%llx", top->m_axi_wlast,
                      burst.beats_left, static_cast<unsigned long long>(burst.addr));
        uint8_t* bytes = memory.beat(burst.addr);
        if (bytes) {
            std::memcpy(bytes, &top->m_axi_wdata, kBusBytes);
        } else {
            burst.resp = kDecerr;
        }
        burst.addr += kBusBytes;
        if (--burst.beats_left == 0) {
            responses.push({t + dram.latency_cycles, burst.resp});
            writes.pop();
        }
    }

    void take_b() {
        if (!b_valid || !top->m_axi_bready) return;
        b_valid = false;
        responses.pop();
        --writes_outstanding;
    }

    void check_held(const char* channel, bool valid, const Address& address, const Held& held) {
        if (!held.waiting) return;
        if (!valid) violation("%s: valid fell before ready", channel);
        else if (address != held.address) violation("%s: payload changed before ready", channel);
    }

    void check_burst(const char* channel, const Address& address, unsigned size, unsigned burst) {
        const auto addr = static_cast<unsigned long long>(address.addr);
        const unsigned beats = address.len + 1;
        if (!live) violation("%s: a burst before the launch", channel);
        if (beats > kMaxBurstBeats)
            violation("%s: a burst of %u beats at address 0x%llx, %u allowed", channel, beats, addr,
                      kMaxBurstBeats);
        if (address.addr % kBusBytes)
            violation("%s: address 0x%llx is not aligned to the bus", channel, addr);
        if (address.addr % kPageBytes + beats * kBusBytes > kPageBytes)
            violation("%s: a burst of %u beats at address 0x%llx crosses 4 KiB", channel, beats,
                      addr);
        if (size != log2_of(kBusBytes)) violation("%s: size is %u", channel, size);
        if (burst != 1) violation("%s: burst type is %u, not INCR", channel, burst);
    }

    __attribute__((format(printf, 2, 3))) void violation(const char* format, ...) {
        if (failed()) return;
        char text[256];
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        char where[48];
        std::snprintf(where, sizeof where, " (t = %llu)", static_cast<unsigned long long>(t));
        message = std::string(text) + where;
    }

    struct Lite {
        bool awready, wready, arready, bvalid, rvalid;
        unsigned bresp, rresp;
        uint32_t rdata;
    } lite{};

    bool unsettled = true;  // an input changed after the last evaluation
    bool live = false, in_reset = false;
    bool ar_ready = false, aw_ready = false, w_ready = false, r_valid = false, b_valid = false;
    int64_t read_credit = kCreditOne, write_credit = kCreditOne;
    uint64_t writes_outstanding = 0;
    Queue<ReadBurst> reads;
    Queue<WriteBurst> writes;
    Queue<Response> responses;
    Held ar_held, aw_held;
    bool w_waiting = false, w_last = false;
    uint8_t w_data[kBusBytes]{};
#ifdef BENCH_UNIT_CLOCKS
#define BENCH_ONE(name) +1
    uint64_t awake_until[BENCH_UNIT_CLOCKS(BENCH_ONE)]{};
#undef BENCH_ONE
#endif
};

}  // namespace

#define BENCH_API extern "C" __attribute__((visibility("default")))

BENCH_API Bench* bench_new(const char* trace_path) {
    Bench* bench = new Bench;
    if (trace_path && !bench->open_trace(trace_path)) {
        delete bench;
        return nullptr;
    }
    return bench;
}

BENCH_API void bench_delete(Bench* bench) { delete bench; }

BENCH_API void bench_reset(Bench* bench) { bench->reset(); }

BENCH_API void bench_dram(Bench* bench, uint64_t latency_cycles, uint64_t max_outstanding,
                          uint64_t credit_per_cycle, uint64_t stall_threshold, uint64_t seed) {
    bench->dram.latency_cycles = latency_cycles;
    bench->dram.max_outstanding = max_outstanding;
    bench->dram.credit_per_cycle = static_cast<int64_t>(credit_per_cycle);
    bench->dram.stall_threshold = stall_threshold;
    bench->dram.seed = seed;
}

// Extents sorted by address, disjoint, whole beats; the bytes stay the caller's.
BENCH_API void bench_memory(Bench* bench, uint64_t count, const uint64_t* base,
                            const uint64_t* size_bytes, uint8_t* const* data) {
    bench->memory = Memory{};
    for (uint64_t i = 0; i < count; ++i)
        bench->memory.extents.push_back({base[i], base[i] + size_bytes[i], data[i]});
}

BENCH_API void bench_arm(Bench* bench) { bench->arm(); }

BENCH_API int bench_run(Bench* bench, uint64_t max_cycles, uint64_t start_cycles) {
    return bench->run(max_cycles, start_cycles);
}

BENCH_API void bench_idle(Bench* bench, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles && !bench->failed(); ++i) bench->cycle();
}

BENCH_API int bench_lite_write(Bench* bench, uint32_t addr, uint32_t data) {
    return bench->lite_write(addr, data);
}

BENCH_API int bench_lite_read(Bench* bench, uint32_t addr, uint32_t* data) {
    return bench->lite_read(addr, data);
}

BENCH_API int bench_irq(Bench* bench) { return bench->top->irq; }

BENCH_API uint64_t bench_running_cycles(Bench* bench) { return bench->running_cycles; }

BENCH_API uint64_t bench_clock_cycles(Bench* bench) { return bench->clock_cycles; }

// The first protocol violation, or an empty string.
BENCH_API const char* bench_violation(Bench* bench) { return bench->message.c_str(); }
