// A memory copier with the machine's ports, to try the bench. Registers: 0 launch, and which rule to break;
// 4 read address; 8 beats. It writes what it reads to 0x2000.

module vta(
  input clk, input rst,
  output [31:0] m_axi_awaddr, output [7:0] m_axi_awlen, output [2:0] m_axi_awsize,
  output [1:0] m_axi_awburst, output reg m_axi_awvalid, input m_axi_awready,
  output [31:0] m_axi_wdata, output [3:0] m_axi_wstrb, output m_axi_wlast, output m_axi_wvalid,
  input m_axi_wready, input [1:0] m_axi_bresp, input m_axi_bvalid, output m_axi_bready,
  output [31:0] m_axi_araddr, output [7:0] m_axi_arlen, output [2:0] m_axi_arsize,
  output [1:0] m_axi_arburst, output reg m_axi_arvalid, input m_axi_arready,
  input [31:0] m_axi_rdata, input [1:0] m_axi_rresp, input m_axi_rlast, input m_axi_rvalid,
  output m_axi_rready,
  input [11:0] s_axi_awaddr, input s_axi_awvalid, output s_axi_awready, input [31:0] s_axi_wdata,
  input [3:0] s_axi_wstrb, input s_axi_wvalid, output s_axi_wready, output [1:0] s_axi_bresp,
  output reg s_axi_bvalid, input s_axi_bready, input [11:0] s_axi_araddr, input s_axi_arvalid,
  output s_axi_arready, output [31:0] s_axi_rdata, output [1:0] s_axi_rresp, output reg s_axi_rvalid,
  input s_axi_rready, output irq, output reg running
);
  reg [31:0] store [0:255];
  reg [8:0] got, sent;
  reg [1:0] error;
  reg [31:0] cycles;
  reg wvalid;
  reg [2:0] breach;
  reg [31:0] read_addr;
  reg [8:0] beats;

  localparam MOVING_ADDRESS = 1, FALLING_VALID = 2, EARLY_LAST = 3, MOVING_DATA = 4;

  wire lite_write = s_axi_awvalid && s_axi_wvalid && !s_axi_bvalid;
  assign s_axi_awready = lite_write;
  assign s_axi_wready = lite_write;
  assign s_axi_bresp = 0;
  assign s_axi_arready = !s_axi_rvalid;
  assign s_axi_rdata = {error, cycles[29:0]};
  assign s_axi_rresp = 0;
  assign irq = 0;

  assign m_axi_araddr = read_addr + (breach == MOVING_ADDRESS ? {cycles[19:0], 3'b0} : 0);
  assign m_axi_awaddr = 32'h2000;
  assign m_axi_arlen = beats - 1;
  assign m_axi_awlen = beats - 1;
  assign m_axi_arsize = 2;
  assign m_axi_awsize = 2;
  assign m_axi_arburst = 1;
  assign m_axi_awburst = 1;
  assign m_axi_rready = 1;
  assign m_axi_bready = 1;
  assign m_axi_wvalid = wvalid && sent != got;
  assign m_axi_wdata = store[sent[7:0]] ^ (breach == MOVING_DATA ? cycles : 0);
  assign m_axi_wstrb = 15;
  assign m_axi_wlast = sent == (breach == EARLY_LAST ? beats - 2 : beats - 1);

  always @(posedge clk) begin
    if (lite_write) begin
      s_axi_bvalid <= 1;
      case (s_axi_awaddr)
        4: read_addr <= s_axi_wdata;
        8: beats <= s_axi_wdata[8:0];
        default: begin
          breach <= s_axi_wdata[2:0];
          running <= 1;
          m_axi_arvalid <= 1;
          got <= 0;
          sent <= 0;
          cycles <= 0;
          error <= 0;
        end
      endcase
    end
    if (s_axi_bvalid && s_axi_bready) s_axi_bvalid <= 0;
    if (s_axi_arvalid && s_axi_arready) s_axi_rvalid <= 1;
    if (s_axi_rvalid && s_axi_rready) s_axi_rvalid <= 0;
    if (running) cycles <= cycles + 1;
    if (m_axi_arvalid && m_axi_arready) begin
      m_axi_arvalid <= 0;
      m_axi_awvalid <= 1;
    end
    if (breach == FALLING_VALID && m_axi_awvalid) m_axi_awvalid <= 0;
    if (m_axi_awvalid && m_axi_awready) begin
      m_axi_awvalid <= 0;
      wvalid <= 1;
    end
    if (m_axi_rvalid) begin
      store[got[7:0]] <= m_axi_rdata;
      got <= got + 1;
      error <= error | m_axi_rresp;
    end
    if (m_axi_wvalid && m_axi_wready) begin
      sent <= sent + 1;
      if (sent == beats - 1) wvalid <= 0;
    end
    if (m_axi_bvalid) begin
      running <= 0;
      error <= error | m_axi_bresp;
    end
    if (rst) begin
      running <= 0;
      cycles <= 0;
      wvalid <= 0;
      got <= 0;
      sent <= 0;
      error <= 0;
      m_axi_arvalid <= 0;
      m_axi_awvalid <= 0;
      s_axi_bvalid <= 0;
      s_axi_rvalid <= 0;
      read_addr <= 32'h1000;
      beats <= 16;
    end
  end
endmodule
