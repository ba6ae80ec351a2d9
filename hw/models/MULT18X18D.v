// What simulates the ECP5 cell of this name (Lattice TN1267) in the one mode that the machine uses:
// operands and product in the cell's registers. Not for synthesis, which knows the cell.
/* verilator lint_off DECLFILENAME */
/* verilator lint_off UNUSEDPARAM */
/* verilator lint_off UNUSEDSIGNAL */
module MULT18X18D #(
  parameter REG_INPUTA_CLK = "NONE",
  parameter REG_INPUTA_CE = "CE0",
  parameter REG_INPUTA_RST = "RST0",
  parameter REG_INPUTB_CLK = "NONE",
  parameter REG_INPUTB_CE = "CE0",
  parameter REG_INPUTB_RST = "RST0",
  parameter REG_OUTPUT_CLK = "NONE",
  parameter REG_OUTPUT_CE = "CE0",
  parameter REG_OUTPUT_RST = "RST0",
  parameter GSR = "ENABLED"
) (
  input CLK0, CE0, RST0, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  input A0, A1, A2, A3, A4, A5, A6, A7, A8,
  input A9, A10, A11, A12, A13, A14, A15, A16, A17,
  input B0, B1, B2, B3, B4, B5, B6, B7, B8,
  input B9, B10, B11, B12, B13, B14, B15, B16, B17,
  output P0, P1, P2, P3, P4, P5, P6, P7, P8,
  output P9, P10, P11, P12, P13, P14, P15, P16, P17,
  output P18, P19, P20, P21, P22, P23, P24, P25, P26,
  output P27, P28, P29, P30, P31, P32, P33, P34, P35
);
  // Operands are extended by a bit, so that signed products serve unsigned numbers too.
  reg signed [18:0] a, b;
  reg signed [37:0] p;
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27,
      P26, P25, P24, P23, P22, P21, P20, P19, P18,
      P17, P16, P15, P14, P13, P12, P11, P10, P9,
      P8, P7, P6, P5, P4, P3, P2, P1, P0} = p[35:0];
  always @(posedge CLK0) begin
    if (RST0) begin
      a <= 0;
      b <= 0;
      p <= 0;
    end else if (CE0) begin
      a <= {SIGNEDA & A17, A17, A16, A15, A14, A13, A12, A11, A10, A9,
      A8, A7, A6, A5, A4, A3, A2, A1, A0};
      b <= {SIGNEDB & B17, B17, B16, B15, B14, B13, B12, B11, B10, B9,
      B8, B7, B6, B5, B4, B3, B2, B1, B0};
      p <= a * b;
    end
  end
  generate
    if (REG_INPUTA_CLK != "CLK0" || REG_INPUTB_CLK != "CLK0" || REG_OUTPUT_CLK != "CLK0")
    begin : no_model
      mode_without_model stop();
    end
  endgenerate
endmodule
