// What a test wants to know afterwards: violations, calls, the trace of operations; as JSON.
#pragma once

#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace emu {

inline std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
            out += escape;
        } else {
            out += c;
        }
    }
    return out + '"';
}

inline std::string joined(const std::vector<std::string>& items) {
    std::string out = "[";
    for (const auto& item : items) out += (out.size() > 1 ? "," : "") + item;
    return out + "]";
}

struct Violation {
    std::string kind;
    std::string message;
};

struct Traced {
    std::string stream, kind, label;
    int device = 0;
    std::size_t bytes = 0;
    double submit_s = 0, start_s = -1, stop_s = -1;
};

class Journal {
public:
    void violation(const std::string& kind, const std::string& message) {
        // The thousandth of a kind tells nothing new.
        if (violations_.size() < 1000) violations_.push_back({kind, message});
    }

    std::size_t submitted(Traced entry) {
        trace_.push_back(std::move(entry));
        return trace_.size() - 1;
    }

    void ran(std::size_t index, double start_s, double stop_s) {
        trace_[index].start_s = start_s;
        trace_[index].stop_s = stop_s;
    }

    std::uint64_t called(const std::string& name) { return ++calls_[name]; }

    std::string violations() const {
        std::vector<std::string> items;
        for (const auto& v : violations_)
            items.push_back("{\"kind\":" + quoted(v.kind) + ",\"message\":" + quoted(v.message) + "}");
        return joined(items);
    }

    std::string calls() const {
        std::string out = "{";
        for (const auto& [name, count] : calls_)
            out += (out.size() > 1 ? "," : "") + quoted(name) + ":" + std::to_string(count);
        return out + "}";
    }

    std::string trace() const {
        std::vector<std::string> items;
        for (const auto& t : trace_) {
            char numbers[200];
            std::snprintf(
                numbers, sizeof numbers,
                ",\"device\":%d,\"bytes\":%zu,\"submit_s\":%.9f,\"start_s\":%.9f,\"stop_s\":%.9f}", t.device, t.bytes,
                t.submit_s, t.start_s, t.stop_s);
            items.push_back(
                "{\"stream\":" + quoted(t.stream) + ",\"kind\":" + quoted(t.kind) + ",\"label\":" + quoted(t.label) +
                numbers);
        }
        return joined(items);
    }

private:
    std::vector<Violation> violations_;
    std::vector<Traced> trace_;
    std::map<std::string, std::uint64_t> calls_;
};

}  // namespace emu
