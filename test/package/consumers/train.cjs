const loko = require("loko");
const { trainOneStep } = require("./step.cjs");

trainOneStep(loko, process.argv[2]).then((result) => console.log(JSON.stringify(result)));
