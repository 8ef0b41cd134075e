// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Inline PTX: a text is parsed once, and run by each thread that comes by. Only instructions that
 * kernels/cuda uses are known, each by its full name; any other ends the program, as a new one
 * has to be written here first.
 */
#include "machine.h"

#include <map>

namespace osr_emulated
{

namespace
{

enum class Op {
  EX2,
  CVT_BF16X2,
  CVT_TF32,
  STORE_2,
  STORE_4,
  COPY,
  COPY_COMMIT,
  COPY_WAIT,
  COPY_WAIT_ALL,
  COPY_ARRIVE,
  LDMATRIX,
  LDMATRIX_TRANS,
  MMA_BF16,
  MMA_TF32,
  MBARRIER_INIT,
  MBARRIER_ARRIVE,
  MBARRIER_EXPECT,
  MBARRIER_TRY_WAIT,
  BULK_COPY,
  TENSOR_COPY_3D,
  BAR_SYNC,
  BAR_ARRIVE,
  WGMMA,
  WGMMA_FENCE,
  WGMMA_COMMIT,
  WGMMA_WAIT,
  SETMAXNREG,
  SETP_NE,
  SELP,
  BRA,
  NOTHING, /* fences and hints: everybody sees all of memory here */
};

/* clang-format off */
const std::map<std::string, Op> names = {
  { "ex2.approx.ftz.f32", Op::EX2 },
  { "cvt.rn.bf16x2.f32", Op::CVT_BF16X2 },
  { "cvt.rna.tf32.f32", Op::CVT_TF32 },
  { "st.global.v2.b32", Op::STORE_2 },
  { "st.global.v4.b32", Op::STORE_4 },
  { "cp.async.ca.shared.global", Op::COPY },
  { "cp.async.cg.shared.global", Op::COPY },
  { "cp.async.commit_group", Op::COPY_COMMIT },
  { "cp.async.wait_group", Op::COPY_WAIT },
  { "cp.async.wait_all", Op::COPY_WAIT_ALL },
  { "cp.async.mbarrier.arrive.noinc.shared::cta.b64", Op::COPY_ARRIVE },
  { "ldmatrix.sync.aligned.m8n8.x4.shared.b16", Op::LDMATRIX },
  { "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", Op::LDMATRIX_TRANS },
  { "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", Op::MMA_BF16 },
  { "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", Op::MMA_TF32 },
  { "mbarrier.init.shared::cta.b64", Op::MBARRIER_INIT },
  { "mbarrier.arrive.shared::cta.b64", Op::MBARRIER_ARRIVE },
  { "mbarrier.arrive.release.cta.shared::cta.b64", Op::MBARRIER_ARRIVE },
  { "mbarrier.arrive.expect_tx.shared::cta.b64", Op::MBARRIER_EXPECT },
  { "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64", Op::MBARRIER_EXPECT },
  { "mbarrier.try_wait.parity.shared::cta.b64", Op::MBARRIER_TRY_WAIT },
  { "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64", Op::MBARRIER_TRY_WAIT },
  { "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes", Op::BULK_COPY },
  { "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes",
    Op::TENSOR_COPY_3D },
  { "bar.sync", Op::BAR_SYNC },
  { "bar.arrive", Op::BAR_ARRIVE },
  { "wgmma.fence.sync.aligned", Op::WGMMA_FENCE },
  { "wgmma.commit_group.sync.aligned", Op::WGMMA_COMMIT },
  { "wgmma.wait_group.sync.aligned", Op::WGMMA_WAIT },
  { "setmaxnreg.inc.sync.aligned.u32", Op::SETMAXNREG },
  { "setmaxnreg.dec.sync.aligned.u32", Op::SETMAXNREG },
  { "setp.ne.b32", Op::SETP_NE },
  { "selp.u32", Op::SELP },
  { "bra", Op::BRA },
  { "fence.mbarrier_init.release.cluster", Op::NOTHING },
  { "fence.proxy.async.shared::cta", Op::NOTHING },
  { "prefetch.global.L2", Op::NOTHING },
  { "prefetch.tensormap", Op::NOTHING },
};
/* clang-format on */

constexpr int MAX_REGISTERS = 4;

/* An operand as it is written: %N, a number, or a register of the text. */
struct Token {
  enum { OPERAND, NUMBER, REGISTER, LABEL } kind;
  int64_t value;
};

struct Statement {
  Op op;
  int predicate; /* a register, or -1 */
  int n;         /* of wgmma */
  std::vector<Token> tokens;
  std::string target; /* of bra */
};

[[noreturn]] void
refuse(const char *text, const std::string &what)
{
  fprintf(stderr, "emulator: inline PTX \"%s\": %s\n", text, what.c_str());
  abort();
}

} // namespace

struct Program {
  std::vector<Statement> statements;
  std::map<std::string, size_t> labels;
};

namespace
{

struct Parser {
  const char *text;
  Program *program;
  std::map<std::string, int> registers;

  /* Words, numbers and %N; brackets only group them. */
  std::vector<std::string> words(const std::string &from) const
  {
    std::vector<std::string> result(1);

    for (char c : from)
      if (strchr(" \n\t,{}[]", c)) {
        if (!result.back().empty())
          result.emplace_back();
      } else {
        result.back() += c;
      }
    if (result.back().empty())
      result.pop_back();
    return result;
  }

  Token token(const std::string &word) const
  {
    const auto i = registers.find(word);

    if (word[0] == '%')
      return { Token::OPERAND, atoi(word.c_str() + 1) };
    if (i != registers.end())
      return { Token::REGISTER, i->second };
    if (word == "_")
      return { Token::NUMBER, 0 };
    if (!isdigit((unsigned char) word[0]))
      refuse(text, "what is " + word + "?");
    return { Token::NUMBER, atoll(word.c_str()) };
  }

  void statement(std::string from)
  {
    std::vector<std::string> w = words(from);
    Statement s = { Op::NOTHING, -1, 0, {}, {} };
    size_t at = 0;

    if (w.empty())
      return;
    if (w[0].back() == ':' && w[0].find("::") == std::string::npos) {
      program->labels[w[0].substr(0, w[0].size() - 1)] = program->statements.size();
      if (++at == w.size())
        return;
    }
    if (w[at][0] == '@')
      s.predicate = (int) token(w[at++].substr(1)).value;
    if (w[at] == ".reg") {
      registers.emplace(w.at(at + 2), (int) registers.size());
      if (registers.size() > MAX_REGISTERS)
        refuse(text, "too many registers");
      return;
    }
    const auto name = names.find(w[at]);

    if (name != names.end())
      s.op = name->second;
    else if (sscanf(w[at].c_str(), "wgmma.mma_async.sync.aligned.m64n%dk16.f32.bf16.bf16", &s.n) ==
                 1 &&
             w[at] ==
                 "wgmma.mma_async.sync.aligned.m64n" + std::to_string(s.n) + "k16.f32.bf16.bf16" &&
             s.n % 8 == 0 && s.n >= 8 && s.n <= 256)
      s.op = Op::WGMMA;
    else
      refuse(text, "no instruction " + w[at] + " in the emulator");
    for (at++; at < w.size(); at++)
      if (s.op == Op::BRA)
        s.target = w[at];
      else
        s.tokens.push_back(token(w[at]));
    program->statements.push_back(s);
  }
};

} // namespace

const Program *
ptx_parse(const char *text)
{
  Program *program = new Program();
  Parser parser = { text, program, {} };
  std::string statement;

  for (const char *c = text; *c; c++) {
    /* A label ends like a statement. */
    if (*c == ';' || (*c == ':' && c[1] == '\n')) {
      parser.statement(*c == ':' ? statement + ":" : statement);
      statement.clear();
    } else {
      statement += *c;
    }
  }
  parser.statement(statement);
  return program;
}

namespace
{

/* One thread's run of a text. */
struct Run {
  const Operand *operands;
  int n;
  uint64_t registers[MAX_REGISTERS];
  const Statement *s;

  const Operand &operand(size_t i) const
  {
    const Token &t = s->tokens.at(i);

    if (t.kind != Token::OPERAND || t.value < 0 || t.value >= n)
      fail("inline PTX: operand %zu is not one of asm()'s", i);
    return operands[t.value];
  }

  uint64_t get(size_t i) const
  {
    const Token &t = s->tokens.at(i);

    if (t.kind == Token::NUMBER)
      return (uint64_t) t.value;
    if (t.kind == Token::REGISTER)
      return registers[t.value];
    return operand(i).value;
  }

  uint32_t word(size_t i) const
  {
    return (uint32_t) get(i);
  }

  float number(size_t i) const
  {
    return from_bits(word(i));
  }

  void set(size_t i, uint64_t value)
  {
    const Token &t = s->tokens.at(i);

    if (t.kind == Token::REGISTER)
      registers[t.value] = value;
    else
      memcpy(operand(i).at, &value, operand(i).size);
  }

  void store(size_t words) const
  {
    uint8_t *to = (uint8_t *) get(0);

    if ((uintptr_t) to % (4 * words) != 0)
      fail("st.global: %zu bytes to %p", 4 * words, (void *) to);
    for (size_t i = 0; i < words; i++) {
      const uint32_t w = word(1 + i);

      memcpy(to + 4 * i, &w, sizeof w);
    }
  }

  void matrices(bool trans)
  {
    uint32_t *r[4];

    for (size_t i = 0; i < 4; i++)
      r[i] = (uint32_t *) operand(i).at;
    load_matrices(r, word(4), trans);
  }

  /* d, a, b, and d once more as what is added to. */
  void mma(bool is_bf16)
  {
    float *d[4];
    uint32_t a[4], b[2];

    for (size_t i = 0; i < 4; i++) {
      d[i] = (float *) operand(i).at;
      a[i] = word(4 + i);
      if (operand(10 + i).at != operand(i).at)
        fail("mma: c is not d");
    }
    for (size_t i = 0; i < 2; i++)
      b[i] = word(8 + i);
    (is_bf16 ? mma_bf16 : mma_tf32)(d, a, b);
  }

  /* d, a (a descriptor, or four registers), b's descriptor, scale-d, imm-scale-a, imm-scale-b,
   * imm-trans-a (not with registers), imm-trans-b. */
  void wgmma(void)
  {
    const size_t sums = (size_t) s->n / 2;
    const bool in_registers = s->tokens.size() == sums + 9;
    const size_t b = sums + (in_registers ? 4 : 1);
    Product p = {};

    if (!in_registers && s->tokens.size() != sums + 7)
      fail("wgmma.mma_async: %zu operands", s->tokens.size());
    p.n = s->n;
    p.d = (float *) operand(0).at;
    for (size_t i = 0; i < sums; i++)
      if (operand(i).at != p.d + i)
        fail("wgmma.mma_async: sum %zu is not in its place", i);
    if (in_registers) {
      p.a = (const uint32_t *) operand(sums).at;
      for (size_t i = 0; i < 4; i++)
        if (!p.a || operand(sums + i).at != p.a + i)
          fail("wgmma.mma_async: register %zu of a is not in its place", i);
    } else {
      p.a_desc = get(sums);
      p.a_trans = get(b + 4) != 0;
    }
    p.b_desc = get(b);
    p.add = get(b + 1) != 0;
    p.b_trans = get(in_registers ? b + 4 : b + 5) != 0;
    if (get(b + 2) != 1 || get(b + 3) != 1)
      fail("wgmma.mma_async: negated operands are not emulated");
    wgmma_issue(p);
  }

  void tensor_copy_3d(void) const
  {
    const int32_t at[3] = { (int32_t) word(2), (int32_t) word(3), (int32_t) word(4) };

    tensor_copy(word(0), (const void *) get(1), at, 3, word(5));
  }

  void execute(void)
  {
    float v;

    switch (s->op) {
    case Op::EX2:
      v = exp2f(number(1));
      set(0, to_bits(fabsf(v) < 0x1p-126f ? 0.0f : v));
      break;
    case Op::CVT_BF16X2: { /* the first source goes into the upper half */
      const uint32_t high = encode_float(number(1), 8, 7), low = encode_float(number(2), 8, 7);

      set(0, low | high << 16);
      break;
    }
    case Op::CVT_TF32: /* to 10 bits of mantissa, ties away from zero */
      set(0, isfinite(number(1)) ? (word(1) + 0x1000) & 0xFFFFE000u : word(1));
      break;
    case Op::STORE_2:
      store(2);
      break;
    case Op::STORE_4:
      store(4);
      break;
    case Op::COPY:
      copy_async(word(0), (const void *) get(1), word(2), word(3));
      break;
    case Op::COPY_COMMIT:
      copy_commit();
      break;
    case Op::COPY_WAIT:
      copy_wait(get(0));
      break;
    case Op::COPY_WAIT_ALL:
      copy_wait_all();
      break;
    case Op::COPY_ARRIVE:
      copy_arrive(word(0));
      break;
    case Op::LDMATRIX:
      matrices(false);
      break;
    case Op::LDMATRIX_TRANS:
      matrices(true);
      break;
    case Op::MMA_BF16:
      mma(true);
      break;
    case Op::MMA_TF32:
      mma(false);
      break;
    case Op::MBARRIER_INIT:
      mbarrier_init(word(0), (int) word(1));
      break;
    case Op::MBARRIER_ARRIVE:
      mbarrier_arrive(word(1));
      break;
    case Op::MBARRIER_EXPECT:
      mbarrier_expect(word(1), word(2));
      mbarrier_arrive(word(1));
      break;
    case Op::MBARRIER_TRY_WAIT: /* the hardware may wait as long as it likes */
      mbarrier_wait(word(1), word(2));
      set(0, 1);
      break;
    case Op::BULK_COPY:
      bulk_copy(word(0), (const void *) get(1), word(2), word(3));
      break;
    case Op::TENSOR_COPY_3D:
      tensor_copy_3d();
      break;
    case Op::BAR_SYNC:
      barrier((int) word(0), (int) word(1), true);
      break;
    case Op::BAR_ARRIVE:
      barrier((int) word(0), (int) word(1), false);
      break;
    case Op::WGMMA:
      wgmma();
      break;
    case Op::WGMMA_FENCE:
      wgmma_fence();
      break;
    case Op::WGMMA_COMMIT:
      wgmma_commit();
      break;
    case Op::WGMMA_WAIT:
      wgmma_wait(get(0));
      break;
    case Op::SETMAXNREG:
      if (get(0) < 24 || get(0) > 256 || get(0) % 8 != 0)
        fail("setmaxnreg: %u registers", word(0));
      break;
    case Op::SETP_NE:
      set(0, word(1) != word(2));
      break;
    case Op::SELP:
      set(0, get(3) ? get(1) : get(2));
      break;
    default:
      break;
    }
  }
};

} // namespace

void
ptx_run(const Program *program, const Operand *operands, int n)
{
  Run run = { operands, n, {}, nullptr };

  /* asm("" : "+f"(x)): the kernel says that x has its value now. */
  if (program->statements.empty()) {
    for (int i = 0; i < n; i++)
      if (wgmma_owns(operands[i].at))
        fail("a register is used that a wgmma under way owns");
    return;
  }
  for (size_t at = 0; at < program->statements.size();) {
    const Statement &s = program->statements[at++];

    if (s.predicate >= 0 && !run.registers[s.predicate])
      continue;
    if (s.op == Op::BRA) {
      at = program->labels.at(s.target);
      continue;
    }
    run.s = &s;
    run.execute();
  }
}

} // namespace osr_emulated
